"""`whatsappctl start`."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any, Protocol

import click

from whatsappctl.command_options import Seconds, client, common_options, company_argument, options
from whatsappctl.output import in_time, print_json, say, session_line, watched
from whatsappd.errors import NotConnected, TimedOut, WrongState
from whatsappd.wire.escape import printable

#: A first QR code lives 60 s and five more live 20 s each; then the session gives up by itself.
TIMEOUT = 180.0

#: States from which the session does not go on by itself, or only later: the command ends there.
ENDS = (
    "stopped", "logged_out", "conflict", "held", "banned", "outdated", "failed", "backing_off",
)  # fmt: skip


class View(Protocol):
    """How the start is shown: for people or for programs."""

    def state(self, status: dict[str, Any]) -> None: ...

    def qr(self, data: dict[str, Any]) -> None: ...


@click.command("start")
@common_options
@company_argument()
@click.option("--no-wait", is_flag=True, help="Return at once, without waiting or showing codes.")
@click.option(
    "--timeout",
    type=Seconds(min_open=True),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Stop waiting after this time, with exit code 6. The session goes on.",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Start although another program has this account open, which is then disconnected.",
)
@click.option(
    "--new-account",
    is_flag=True,
    help="Accept that the company is linked with another number from now on. Whom it has written "
    "with is remembered for each number.",
)
@click.option(
    "--queued",
    type=click.Choice(("cancel", "send")),
    default="cancel",
    show_default=True,
    metavar="cancel|send",
    help="With --new-account: what to do with waiting messages, which were written for the "
    "previous number.",
)
def command(
    company: str, no_wait: bool, timeout: float, take_over: bool, new_account: bool, queued: str
) -> None:
    """Start COMPANY's session, and make the company if it is new.

    A session that is not linked to a phone yet shows a QR code. On the phone: Settings, Linked
    devices, Link a device. The code is renewed in place, and the command ends when the session is
    connected. The session keeps running, also when this command is interrupted, and the daemon
    starts it again when it restarts.

    When stdout is no terminal, or with --json, each state and code is one line of JSON.
    """
    wishes: dict[str, Any] = {"take_over": take_over}
    if new_account:
        wishes |= {"new_account": True, "queued": queued}
    with client() as daemon:
        if no_wait:
            status = daemon.start(company, **wishes)
            if options().json:
                print_json(status)
            else:
                say(session_line(status))
            return
        status, events = daemon.start_and_watch(company, **wishes)
    view: View = JsonView(company) if options().json or not sys.stdout.isatty() else Screen()
    with events:
        try:
            _watch(events, status, view, monotonic() + timeout)
        except TimedOut as error:
            raise TimedOut(
                f"{company} is not connected after {timeout:g} s; it goes on trying: "
                f"see `whatsappctl status {company}`",
                company=company,
            ) from error
        except KeyboardInterrupt:
            click.echo(f"\n{company} goes on: see `whatsappctl status {company}`", err=True)
            click.get_current_context().exit(130)


def _watch(events: Any, status: dict[str, Any], view: View, until: float) -> None:
    view.state(status)
    if status["state"] == "connected":
        return
    if status["qr"]:
        view.qr({"qr": status["qr"], "expires_ms": None})
    shown = status["qr"]
    for event in watched(events, until=until):
        if event.type == "session.qr" and event.data["qr"] != shown:
            shown = event.data["qr"]
            view.qr(event.data)
        elif event.type == "session.state":
            status = {"company": event.company, **event.data}
            view.state(status)
            if status["state"] == "connected":
                return
            if status["state"] in ENDS:
                raise _ended(status)


def _ended(status: dict[str, Any]) -> NotConnected | WrongState:
    company, state = status["company"], status["state"]
    line = session_line(status)
    if state in ("conflict", "held"):
        return WrongState(line, company=company, state=state)
    if state == "backing_off":
        line += f"; to wait for it: whatsappctl wait {company}"
    return NotConnected(line, company=company, state=state)


class JsonView:
    """A line for each change: `{company, state, cause, …}` or `{company, qr, expires_ms}`."""

    def __init__(self, company: str) -> None:
        self._company = company

    def state(self, status: dict[str, Any]) -> None:
        print_json({name: value for name, value in status.items() if name != "subscription"})

    def qr(self, data: dict[str, Any]) -> None:
        print_json({"company": self._company, **data})


class Screen:
    """A terminal: states on one line each, and the code drawn over its predecessor."""

    def __init__(self) -> None:
        self._lines_of_code = 0

    def state(self, status: dict[str, Any]) -> None:
        self._erase()
        say(session_line(status))

    def qr(self, data: dict[str, Any]) -> None:
        from whatsappctl.qrcode import drawn

        self._erase()
        code = drawn(data["qr"], color=True)
        good = f", good for {in_time(data['expires_ms'])[3:]}" if data.get("expires_ms") else ""
        click.echo(
            f"{code}\n{printable('Scan it with the phone: Linked devices, Link a device' + good)}"
        )
        self._lines_of_code = code.count("\n") + 2

    def _erase(self) -> None:
        if self._lines_of_code:
            # Up to the code's first line, and clear from there; a smaller screen is cleared whole.
            click.echo(f"\x1b[{self._lines_of_code}F\x1b[J", nl=False)
            self._lines_of_code = 0
