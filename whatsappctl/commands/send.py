"""`whatsappctl send`."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

import click

from whatsappctl.command_options import (
    Seconds,
    client,
    common_options,
    company_argument,
    options,
    read_stdin,
)
from whatsappctl.output import print_json, say
from whatsappd.errors import SendFailed, Stopping, TimedOut, Uncertain, Unreachable

if TYPE_CHECKING:
    from whatsappctl.client import Client

#: States that a message does not leave, and that nobody asks for.
ENDS = ("failed", "expired", "cancelled")


@click.command("send")
@common_options
@company_argument(required=False)
@click.argument("to", required=False)
@click.argument("text", required=False)
@click.option(
    "--batch",
    type=click.File("rb"),
    metavar="FILE",
    help="Send many: FILE has a message a line, as JSON; - is stdin. See below.",
)
@click.option(
    "--content",
    metavar="JSON",
    help="Send this content instead of TEXT: an object with its kind, such as "
    """'{"kind": "text", "text": "Hello"}'; - reads it from stdin.""",
)
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
    type=Seconds(),
    metavar="SECONDS",
    help="With --wait or --batch: end after this time, with exit code 6. What was accepted goes "
    "on.",
)
@click.option(
    "--key",
    help="Your own name for this message. Sending the same key again sends nothing twice.",
)
@click.option(
    "--ttl",
    type=Seconds(min_open=True),
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
    "--no-queue",
    is_flag=True,
    help="Fail if it cannot be sent now, rather than let it wait: not connected is exit code 4, "
    "and a reached limit 5, with the time to wait.",
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="With --batch: send the good lines although there are bad ones.",
)
@click.option(
    "--key-prefix",
    metavar="TEXT",
    help="With --batch: put this before every line's key. With a new prefix, a file that was sent "
    "before is sent once more.",
)
def command(
    company: str | None,
    to: str | None,
    text: str | None,
    batch: IO[bytes] | None,
    content: str | None,
    wait: str,
    timeout: float | None,
    key: str | None,
    skip_bad: bool,
    key_prefix: str | None,
    **choices: Any,
) -> None:
    """Send TEXT from COMPANY's account to TO, a phone number or a JID.

    Without TEXT, or with -, the text is read from stdin. Prints the message's id and state. Once
    that is printed the message will not be lost: it is sent when the session is connected and the
    limits allow. Exit code 1 says that it failed, expired or was cancelled; 11 that it is uncertain
    whether it was sent.

    \b
    whatsappctl send acme +15550100 "Your order is ready."
    report | whatsappctl send acme 1234-5678@g.us --wait sent --timeout 60

    With --batch, each line of FILE is an object with "to" and "text" (or "content"), and if wanted
    "company" (else COMPANY), "key", "ttl" (seconds) and "on_uncertain". All lines are checked
    before the first is sent. It can be interrupted, and run again to complete it: every line has a
    key, so nothing is sent twice. A line without "key" gets one made of its company, recipient and
    content, and of how many equal lines precede it. --json prints a result for each line.

    \b
    whatsappctl send acme --batch news.ndjson --key-prefix "$(date +%F)-"
    make-reminders | whatsappctl send --batch - --json >results.ndjson
    """
    if batch is not None:
        given = (content, key, to)
        if wait != "queued" or choices["no_queue"] or any(each is not None for each in given):
            raise click.UsageError(
                "--batch goes without TO, TEXT, --content, --wait, --key and --no-queue"
            )
        from whatsappctl.commands._send_batch import send_batch

        send_batch(
            batch,
            company=company,
            skip_bad=skip_bad,
            key_prefix=key_prefix or "",
            timeout=timeout,
            **_arguments(**choices),
        )
        return
    if skip_bad or key_prefix is not None:
        raise click.UsageError("--skip-bad and --key-prefix go with --batch")
    if company is None or to is None:
        raise click.UsageError("give COMPANY and TO, or --batch FILE")
    if content is not None and text is not None:
        raise click.UsageError("give TEXT or --content, not both: a text is content of kind text")
    if content is None and text in (None, "-"):
        text = _read_text()
    said = None if content is None else _content_of(content)
    with client() as daemon:
        row = daemon.send(company, to, text, content=said, key=key, **_arguments(**choices))
        if wait != "queued":
            row = _wait(daemon, row, wait, timeout)
    _print_row(row)
    if row["state"] == "uncertain":
        raise Uncertain(_uncertain(row), id=row["id"])
    if row["state"] in ENDS:
        raise SendFailed(
            f"message {row['id']} is {row['state']}: {row['reason'] or 'no reason is known'}",
            id=row["id"],
            state=row["state"],
        )


def _wait(daemon: Client, row: dict[str, Any], goal: str, timeout: float | None) -> dict[str, Any]:
    from whatsappctl.commands._waits import wait_for_message

    accepted = row
    try:
        return wait_for_message(
            daemon,
            row,
            goal,
            deadline=timeout,
            on_uncertain=lambda row: say(_uncertain(row), err=True),
        )
    except KeyboardInterrupt:
        _print_row(accepted)
        raise
    except (TimedOut, Unreachable, Stopping) as error:
        _print_row({**accepted, "state": error.data.get("state", accepted["state"])})
        if isinstance(error, TimedOut):
            raise
        # Whoever reads "unreachable" should not send it again.
        raise type(error)(
            f"message {accepted['id']} is accepted and safe, but nobody can tell how far it is: "
            f"{error.message}",
            id=accepted["id"],
        ) from error


def _uncertain(row: dict[str, Any]) -> str:
    return (
        f"message {row['id']} is uncertain, nobody knows whether it was sent ({row['reason']}): "
        f"a receipt may still tell, or decide with `whatsappctl outbox resolve {row['id']}`"
    )


def _arguments(ttl: float | None, on_uncertain: str | None, no_queue: bool) -> dict[str, Any]:
    return {
        "ttl_ms": None if ttl is None else max(1, int(ttl * 1000)),
        "on_uncertain": on_uncertain,
        "no_queue": no_queue,
    }


def _read_text() -> str:
    if sys.stdin.isatty():
        say("Type the message; Ctrl-D on an empty line sends it.", err=True)
    text = read_stdin("the text").removesuffix("\n")
    if not text:
        raise click.UsageError("there is no text: give it as TEXT or on stdin")
    return text


def _content_of(given: str) -> dict[str, Any]:
    """The map that --content gives; the daemon knows the kinds."""
    from json import loads

    try:
        content = loads(read_stdin("the content") if given == "-" else given)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--content: no JSON: {error}") from error
    if not isinstance(content, dict):
        raise click.UsageError(
            """--content: must be an object, such as '{"kind": "text", "text": "Hello"}'"""
        )
    return content


def _print_row(row: dict[str, Any]) -> None:
    if options().json:
        print_json(row)
    else:
        say(f"{row['id']} {row['state']}")
