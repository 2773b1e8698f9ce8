"""How answers look: tables, ages and addresses for people, JSON for programs.

What comes from WhatsApp (names, texts) may hold control characters; nothing of it reaches a
terminal unescaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import time
from typing import Any

import click


def plain(value: Any) -> str:
    """`value` as text, with everything escaped that would move a terminal's cursor, or worse."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
    cells = [list(titles), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[-1] = 0
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def finding_lines(found: Iterable[tuple[str, str, str, str | None]]) -> list[str]:
    """Name, level, detail and remedy of each finding, the remedy on a line of its own."""
    found = list(found)
    width = max((len(name) for name, *_ in found), default=0)
    lines = []
    for name, level, detail, remedy in found:
        lines.append(f"{level:<4}  {plain(name):<{width}}  {plain(detail)}")
        if remedy is not None:
            lines.append(f"{'':<4}  {'':<{width}}  -> {plain(remedy)}")
    return lines


def json_text(value: Any) -> str:
    """One line of JSON. Bytes become base64."""
    from json import dumps

    return dumps(value, ensure_ascii=False, default=_json_default)


def _json_default(value: Any) -> str:
    if isinstance(value, bytes):
        from base64 import b64encode

        return b64encode(value).decode()
    return str(value)


def print_json(value: Any) -> None:
    """One line of JSON on stdout, at once: whoever follows a pipe should not wait for a buffer."""
    click.echo(json_text(value))


def session_line(status: dict[str, Any]) -> str:
    """One session in one sentence: `acme: connected as +15550100`."""
    line = f"{status['company']}: {status['state']}"
    if status["state"] == "connected" and status.get("jid"):
        return plain(f"{line} as {number(status['jid'])}")
    if status.get("cause") and status["cause"] != status["state"]:
        line += f" ({status['cause']})"
    if status.get("next_try_ms"):
        line += f", next try {in_time(status['next_try_ms'])}"
    return plain(line)
