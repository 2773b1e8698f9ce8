"""`whatsappctl wait`."""

from __future__ import annotations

from time import monotonic, sleep

import click

from whatsappctl.command_options import Seconds, client, common_options, company_argument, options
from whatsappctl.output import print_json, say, session_line
from whatsappd.errors import TimedOut, Unreachable

#: Seconds between two tries to reach the daemon.
_PAUSE = 0.1
#: As in `whatsappd.model.session.SessionState`, which takes longer to import than this verb runs.
STATES = (
    "stopped", "starting", "pairing", "connecting", "connected", "reconnecting", "backing_off",
    "logged_out", "conflict", "banned", "outdated", "failed", "held",
)  # fmt: skip


@click.command("wait")
@common_options
@company_argument(required=False)
@click.option(
    "--for",
    "state",
    type=click.Choice(STATES),
    metavar="STATE",
    help="The state to wait for.  [default: connected]",
)
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="Give up after this time, with exit code 6. Default: wait for ever.",
)
def command(company: str | None, state: str | None, timeout: float | None) -> None:
    """Wait until COMPANY's session is in a state; for scripts that need it connected.

    Without COMPANY, wait until the daemon answers.

    \b
    whatsappd run &
    whatsappctl wait
    whatsappctl wait acme --timeout 60 && whatsappctl send acme +15550100 Hello
    """
    if company is None:
        if state is not None:
            raise click.UsageError("--for is about a company: say which")
        _wait_for_daemon(timeout)
        return
    with client() as daemon:
        status = daemon.wait(company, state or "connected", deadline=timeout)
    if options().json:
        print_json(status)
    else:
        say(session_line(status), err=True)


def _wait_for_daemon(timeout: float | None) -> None:
    """Try until the daemon answers. Nothing announces a socket that is not there yet."""
    until = None if timeout is None else monotonic() + timeout
    while True:
        try:
            with client() as daemon:
                found = daemon.hello()
        except Unreachable as error:
            if until is not None and monotonic() >= until:
                raise TimedOut(f"after {timeout:g} s: {error.message}") from error
            sleep(_PAUSE)
        else:
            break
    if options().json:
        print_json(found)
    else:
        say(f"whatsappd {found['version']} answers", err=True)
