"""`whatsappctl send`."""

from __future__ import annotations

import sys
from typing import Any

import click

from whatsappctl.common import client, common_options, company_argument, options
from whatsappctl.output import plain, print_json
from whatsappd.errors import SendFailed, TimedOut

#: States that a message does not leave by itself, and that are not what was asked for.
ENDS = ("failed", "expired", "cancelled", "uncertain")


@click.command("send")
@common_options
@company_argument()
@click.argument("to")
@click.argument("text", required=False)
@click.option(
    "--wait",
    type=click.Choice(["queued", "sent", "delivered"]),
    default="queued",
    show_default=True,
    help="Return when the message is on the daemon's disk, when WhatsApp has it, or when the "
    "recipient's device has it.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --wait: stop waiting after this time, with exit code 6. The message stays queued.",
)
@click.option(
    "--key",
    help="Your own name for this message. Sending the same key again sends nothing twice.",
)
@click.option(
    "--ttl",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Do not send it any more after this time.",
)
@click.option(
    "--on-uncertain",
    type=click.Choice(["ask", "resend"]),
    help="When a crash leaves it unknown whether it was sent: leave it for a person to decide "
    "(the default), or risk sending it twice.",
)
@click.option(
    "--no-queue", is_flag=True, help="Fail if it cannot be sent now, rather than let it wait."
)
def command(
    company: str,
    to: str,
    text: str | None,
    wait: str,
    timeout: float | None,
    key: str | None,
    **choices: Any,
) -> None:
    """Send TEXT from COMPANY's account to TO, a phone number or a JID.

    Without TEXT, or with -, the text is read from stdin. Prints the message's id and state. Once
    that is printed the message will not be lost: it is sent when the session is connected.

    \b
    whatsappctl send acme +15550100 "Your order is ready."
    report | whatsappctl send acme 1234-5678@g.us --wait sent --timeout 60
    """
    if text is None or text == "-":
        text = _read_text()
    arguments: dict[str, Any] = {"to": to, "text": text, **_arguments(**choices)}
    with client() as daemon:
        if wait == "queued":
            row = daemon.send(company, key=key, **arguments)
        else:
            # In two steps, so that the id is known when the waiting ends early; with a key, the
            # second cannot send anything again.
            key = key or _new_key()
            row = daemon.send(company, key=key, **arguments)
            try:
                row = daemon.send(company, key=key, wait=wait, deadline=timeout, **arguments)
            except TimedOut as error:
                _print_row(row)
                raise TimedOut(
                    f"message {row['id']} is not {wait} after {timeout:g} s; it stays queued",
                    id=row["id"],
                ) from error
    _print_row(row)
    if row["state"] in ENDS:
        raise SendFailed(f"message {row['id']} is {row['state']}: {row['reason']}", id=row["id"])


def _arguments(ttl: float | None, on_uncertain: str | None, no_queue: bool) -> dict[str, Any]:
    return {
        "ttl_ms": None if ttl is None else max(1, int(ttl * 1000)),
        "on_uncertain": on_uncertain,
        "no_queue": no_queue,
    }


def _read_text() -> str:
    if sys.stdin.isatty():
        click.echo("Type the message; Ctrl-D on an empty line sends it.", err=True)
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"stdin is not UTF-8 text: {error}") from error
    text = text.removesuffix("\n")
    if not text:
        raise click.UsageError("there is no text: give it as TEXT or on stdin")
    return text


def _new_key() -> str:
    from secrets import token_hex

    return f"whatsappctl-{token_hex(8)}"


def _print_row(row: dict[str, Any]) -> None:
    if options().json:
        print_json(row)
    else:
        click.echo(f"{row['id']} {plain(row['state'])}")
