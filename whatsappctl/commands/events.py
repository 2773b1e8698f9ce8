"""`whatsappctl events`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from whatsappctl.command_options import client, common_options, options
from whatsappctl.output import clock, number, print_json, say, watched
from whatsappd.command_runner import check_output
from whatsappd.model.event import Event

if TYPE_CHECKING:
    from whatsappctl.event_stream import EventStream

#: Events printed before a consumer's place is moved, when they come without a pause.
ACK_EVERY = 100
#: Events asked for at a time, when the newest is not waited for.
PAGE = 500


@click.group("events", invoke_without_command=True, subcommand_metavar="[forget NAME]")
@common_options
@click.option(
    "--after",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="Begin behind this number; 0: with the oldest. Default: only new events, and with "
    "--no-follow all.",
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
@click.option(
    "--follow/--no-follow",
    default=True,
    show_default=True,
    help="Wait for further events, or end with the newest there is.",
)
@click.pass_context
def command(
    ctx: click.Context,
    after: int | None,
    companies: tuple[str, ...],
    types: tuple[str, ...],
    consumer: str | None,
    count: int | None,
    follow: bool,
) -> None:
    """Follow events as they happen: messages, receipts, state changes. Ctrl-C ends it.

    It also ends when the reader of its output has gone away (`| head -1`), with exit code 0.

    With --json each event is one line (NDJSON), written in one piece. It can be killed at any
    moment and run again without missing an event. With --consumer, whose place the daemon keeps,
    the last ones may be printed twice, because an event is acknowledged after it is printed: look
    at their seq. With --after and the last seq that you have, none is.

    \b
    whatsappctl events --type message.received --company acme
    whatsappctl events --json --consumer crm | ./import-into-crm
    whatsappctl events --json --after 0 --no-follow >all.ndjson
    whatsappctl events forget crm
    """
    if ctx.invoked_subcommand is not None:
        if any((after is not None, companies, types, consumer, count, not follow)):
            raise click.UsageError(f"{ctx.invoked_subcommand} goes without options of events", ctx)
        return
    gc.enable()  # `cli.main` does without it, but this may run for months
    wanted: dict[str, Any] = {"companies": companies or None, "types": types or None}
    if not follow:
        _print_what_there_is(after, consumer, wanted, count)
        return
    with client() as daemon:
        stream = daemon.events(after=after, consumer=consumer, **wanted)
    with stream:
        try:
            _follow(stream, count)
        except KeyboardInterrupt:
            click.get_current_context().exit(0)  # the way to end it, no failure


@command.command("forget")
@common_options
@click.argument("name")
def forget(name: str) -> None:
    """Delete the position that the daemon keeps for the consumer NAME.

    A program that uses the name again begins with what comes then. `whatsappctl metrics` shows
    which consumers there are, and how far behind.
    """
    with client() as daemon:
        forgotten = daemon.call("events.forget", consumer=name)
    if options().json:
        print_json(forgotten)
    else:
        say(f"forgot {name}", err=True)


def _follow(stream: EventStream, count: int | None) -> None:
    _tell_gap(stream.gap)
    gap = stream.gap
    show = _printer()
    unacknowledged = 0
    for printed, event in enumerate(watched(stream), 1):
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


def _print_what_there_is(
    after: int | None, consumer: str | None, wanted: dict[str, Any], count: int | None
) -> None:
    """Page by page up to the newest event of now; each page is acknowledged when it is printed."""
    show = _printer()
    with client() as daemon:
        if consumer is not None:
            with daemon.events(after=after, consumer=consumer) as stream:
                after = stream.after
        cursor, last = after or 0, None
        gap = None
        while last is None or cursor < last:
            limit = PAGE if count is None else min(PAGE, count)
            page = daemon.call("events.read", after=cursor, limit=limit, **wanted)
            last = page["last_seq"] if last is None else last
            if page["gap"] != gap:
                gap = page["gap"]
                _tell_gap(gap)
            events = [event for event in map(Event.from_wire, page["events"]) if event.seq <= last]
            for event in events:
                show(event)
                check_output()
            cursor = page["next"]
            if consumer is not None and cursor > (after or 0):
                daemon.call("events.ack", consumer=consumer, seq=min(cursor, last))
            if count is not None:
                count -= len(events)
                if count == 0:
                    return


def _printer() -> Callable[[Event], None]:
    return _print_json if options().json else _print_line


def _tell_gap(first: int | None) -> None:
    if first is not None:
        say(f"some events before seq {first} are deleted already", err=True)


def _print_json(event: Event) -> None:
    print_json(event.as_wire())


def _print_line(event: Event) -> None:
    words = _words(event.type, event.data)
    head = f"{event.seq:>6}  {clock(event.time_ms)}  {event.company}  {event.type}"
    say(f"{head}  {words}")


def _words(kind: str, data: dict[str, Any]) -> str:
    match kind:
        case "session.state":
            return f"{data.get('from')} -> {data.get('state')}: {data.get('cause')}"
        case "session.qr":
            return "a QR code to scan (whatsappctl qr)"
        case "message.received":
            text = data.get("text") or f"[{_kind(data.get('content'))}]"
            if data.get("from_me"):
                device = "the phone" if data.get("origin") == "phone" else "another device"
                return f"from {device} to {_address(data.get('chat'))}: {text}"
            return f"{_address(data.get('sender'))}: {text}"
        case "outbox.state":
            reason = f" ({data['reason']})" if data.get("reason") else ""
            return f"{data.get('id')} to {number(data.get('chat'))}: {data.get('state')}{reason}"
        case "message.unreadable":
            what = f"a {data.get('of')} that cannot be read ({data.get('error')})"
            return f"{_address(data.get('sender'))}: {what}"
        case "message.receipt":
            ids = data.get("message_ids") or []
            return f"{data.get('receipt')} by {_address(data.get('sender'))}: {', '.join(ids)}"
    from whatsappctl.output import json_text

    return json_text(data)


def _address(person: Any) -> str:
    """The phone number of a person where it is known, else the JID; `-` for nobody."""
    jid = person.get("jid") if isinstance(person, dict) else None
    return number(jid if isinstance(jid, str) else None)


def _kind(content: Any) -> str:
    """The kind of a content without words, or the protocol's own name for what has none."""
    if not isinstance(content, dict):
        return "?"
    return str(content.get("type") or content.get("kind"))
