"""`whatsappctl events`."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import click

from whatsappctl.common import client, common_options, options
from whatsappctl.output import clock, number, plain, print_json

if TYPE_CHECKING:
    from whatsappctl.stream import EventStream
    from whatsappd.model.event import Event

#: Events printed before a consumer's place is moved, when they come without a pause.
ACK_EVERY = 100


@click.command("events")
@common_options
@click.option(
    "--after",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="Begin behind this number; 0: with the oldest. Default: only new events.",
)
@click.option(
    "--company",
    "companies",
    multiple=True,
    metavar="COMPANY",
    help="Only this company's events; may be repeated.",
)
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Only events of this type, such as message.received; may be repeated.",
)
@click.option(
    "--consumer",
    metavar="NAME",
    help="Begin where this consumer left off, and keep its place: what is printed is acknowledged.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after this many.")
def command(
    after: int | None,
    companies: tuple[str, ...],
    types: tuple[str, ...],
    consumer: str | None,
    count: int | None,
) -> None:
    """Follow events as they happen: messages, receipts, state changes. Ctrl-C ends it.

    With --json each event is one line (NDJSON). With --consumer it can be killed and run again:
    nothing is missed, and what was printed but not yet acknowledged is printed again.

    \b
    whatsappctl events --type message.received --company acme
    whatsappctl events --json --consumer crm | ./import-into-crm
    """
    gc.enable()  # `cli.main` does without it, but this may run for months
    with client() as daemon:
        stream = daemon.events(
            after=after, companies=companies or None, types=types or None, consumer=consumer
        )
    with stream:
        try:
            _follow(stream, count)
        except KeyboardInterrupt:
            click.get_current_context().exit(0)  # the way to end it, no failure


def _follow(stream: EventStream, count: int | None) -> None:
    _tell_gap(stream.gap)
    gap = stream.gap
    show = _print_json if options().json else _print_line
    unacknowledged = 0
    for printed, event in enumerate(stream, 1):
        if stream.gap != gap:
            gap = stream.gap
            _tell_gap(gap)
        show(event)
        unacknowledged += 1
        done = printed == count
        if stream.consumer and (done or unacknowledged == ACK_EVERY or not stream.has_next()):
            stream.ack(event.seq)
            unacknowledged = 0
        if done:
            return


def _tell_gap(first: int | None) -> None:
    if first is not None:
        click.echo(f"older events are deleted: the oldest there is has seq {first}", err=True)


def _print_json(event: Event) -> None:
    print_json(event.as_wire())


def _print_line(event: Event) -> None:
    words = _words(event.type, event.data)
    head = f"{event.seq:>6}  {clock(event.time_ms)}  {event.company}  {event.type}"
    click.echo(plain(f"{head}  {words}"))


def _words(kind: str, data: dict[str, Any]) -> str:
    match kind:
        case "session.state":
            return f"{data.get('from')} -> {data.get('state')}: {data.get('cause')}"
        case "session.qr":
            return "a QR code to scan (whatsappctl qr)"
        case "message.received":
            text = data.get("text")
            return f"{_sender(data)}: {text or '[' + str(data.get('content')) + ']'}"
        case "outbox.state":
            reason = f" ({data['reason']})" if data.get("reason") else ""
            return f"{data.get('id')} to {number(data.get('chat'))}: {data.get('state')}{reason}"
        case "message.receipt":
            ids = data.get("message_ids") or []
            return f"{data.get('receipt')} by {_sender(data)}: {', '.join(ids)}"
    from whatsappctl.output import json_text

    return json_text(data)


def _sender(data: dict[str, Any]) -> str:
    """The phone number where it is known: WhatsApp names senders by LID, with the number beside."""
    jids = [jid for jid in (data.get("sender"), data.get("sender_alt")) if jid]
    jids.sort(key=lambda jid: not jid.endswith("@s.whatsapp.net"))
    return number(jids[0] if jids else None)
