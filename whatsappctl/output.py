"""How answers look: tables, ages and addresses for people, JSON for programs.

What comes from WhatsApp (names, texts) may hold control characters and marks that turn a line
around; nothing of it reaches a terminal, or a reader of lines, unescaped (`whatsappd.wire.escape`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import click

from whatsappd.command_runner import OutputEnded, check_output
from whatsappd.stdio import wait_for
from whatsappd.wire.escape import printable, safe_json

if TYPE_CHECKING:
    from whatsappctl.event_stream import EventStream
    from whatsappd.model.event import Event


def age(since_ms: int | None, *, now_ms: int | None = None) -> str:
    """How long ago, in one or two units: `12s`, `3m`, `2h 5m`, `4d 1h`; `-` for never."""
    if not since_ms:
        return "-"
    if now_ms is None:
        now_ms = int(time() * 1000)
    seconds = max(0, now_ms - since_ms) // 1000
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m"
    if seconds < 86400:
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours}h {minutes}m" if minutes else f"{hours}h"
    days, hours = divmod(seconds // 3600, 24)
    return f"{days}d {hours}h" if hours else f"{days}d"


def in_time(at_ms: int | None, *, now_ms: int | None = None) -> str:
    """How far ahead: `in 12s`, `now`; `-` for never."""
    if not at_ms:
        return "-"
    if now_ms is None:
        now_ms = int(time() * 1000)
    if at_ms - now_ms < 1000:
        return "now"
    return "in " + age(now_ms, now_ms=at_ms)


def clock(at_ms: int) -> str:
    """Local date and time, to the second."""
    from time import localtime, strftime

    return strftime("%Y-%m-%d %H:%M:%S", localtime(at_ms / 1000))


def number(jid: str | None) -> str:
    """`+15550100` for a phone-number JID of any device; other JIDs as they are; `-` for none."""
    if not jid:
        return "-"
    user, _, server = jid.partition("@")
    user = user.partition(":")[0]
    return f"+{user}" if server == "s.whatsapp.net" else f"{user}@{server}"


def table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns as wide as they need to be; the last one is free."""
    cells = [list(titles), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(columns, column)) for column in zip(*cells, strict=True)]
    widths[-1] = 0
    lines = (
        "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes: two for Chinese, none for combining accents."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(
        0 if category(each) in ("Mn", "Me", "Cf") else 1 + (east_asian_width(each) in "WF")
        for each in text
    )


def shortened(text: str, width: int) -> str:
    """`text` on one line of at most `width` columns; an ellipsis ends it if there was more."""
    text = printable(text)
    if columns(text) <= width:
        return text
    while columns(text) > width - 1:
        text = text[: min(len(text) - 1, width)]
    return text + "…"


def padded(text: str, width: int) -> str:
    """`text` with spaces behind it up to `width` columns."""
    return text + " " * (width - columns(text))


def finding_lines(found: Iterable[tuple[str, str, str, str | None]]) -> list[str]:
    """Name, level, detail and remedy of each finding, the remedy on a line of its own."""
    found = [(printable(name), level, detail, remedy) for name, level, detail, remedy in found]
    width = max((columns(name) for name, *_ in found), default=0)
    lines = []
    for name, level, detail, remedy in found:
        lines.append(f"{level:<4}  {padded(name, width)}  {printable(detail)}")
        if remedy is not None:
            lines.append(f"{'':<4}  {'':<{width}}  -> {printable(remedy)}")
    return lines


def json_text(value: Any) -> str:
    """One line of JSON. Bytes become base64."""
    from json import dumps

    return safe_json(dumps(value, ensure_ascii=False, default=_json_default))


def _json_default(value: Any) -> str:
    if isinstance(value, bytes):
        from base64 import b64encode

        return b64encode(value).decode()
    return str(value)


def print_json(value: Any) -> None:
    """One line of JSON on stdout, at once: whoever follows a pipe should not wait for a buffer."""
    click.echo(json_text(value))


def say(text: object, *, err: bool = False) -> None:
    """Print a line for people. What others wrote in it cannot make it two, or command anything."""
    click.echo(printable(text), err=err)


def watched(stream: EventStream, *, until: float | None = None) -> Iterator[Event]:
    """The events of `stream`, for a command that prints them.

    Args:
        until: a time by `monotonic`; None: for ever.

    Raises:
        OutputEnded: whoever read what is printed has gone away; noticed also while nothing comes.
        TimedOut: it is `until`.
    """
    while True:
        check_output()
        if not stream.has_next() and not wait_for(stream.fileno(), until=until):
            raise OutputEnded
        yield stream.next(deadline=None if until is None else max(0.001, until - monotonic()))


def session_line(status: dict[str, Any]) -> str:
    """One session in one sentence: `acme: connected as +15550100`."""
    line = f"{status['company']}: {status['state']}"
    if status["state"] == "connected" and status.get("jid"):
        return printable(f"{line} as {number(status['jid'])}")
    if status.get("cause") and status["cause"] != status["state"]:
        line += f" ({status['cause']})"
    if status.get("next_try_ms"):
        line += f", next try {in_time(status['next_try_ms'])}"
    return printable(line)
