"""`whatsappctl wait`."""

from __future__ import annotations

import click

from whatsappctl.command_options import Seconds, client, common_options, company_argument, options
from whatsappctl.output import print_json, say, session_line

#: As in `whatsappd.model.session.SessionState`, which takes longer to import than this verb runs.
STATES = (
    "stopped", "starting", "pairing", "connecting", "connected", "reconnecting", "backing_off",
    "logged_out", "conflict", "banned", "outdated", "failed", "held",
)  # fmt: skip


@click.command("wait")
@common_options
@company_argument()
@click.option(
    "--for",
    "state",
    type=click.Choice(STATES),
    default="connected",
    show_default=True,
    metavar="STATE",
    help="The state to wait for.",
)
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="Give up after this time, with exit code 6. Default: wait for ever.",
)
def command(company: str, state: str, timeout: float | None) -> None:
    """Wait until COMPANY's session is in a state; for scripts that need it connected.

    \b
    whatsappctl wait acme --timeout 60 && whatsappctl send acme +15550100 "Good morning"
    """
    with client() as daemon:
        status = daemon.wait(company, state, deadline=timeout)
    if options().json:
        print_json(status)
    else:
        say(session_line(status), err=True)
