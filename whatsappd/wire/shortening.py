"""How large an event may be: what is beyond goes, and the event says so.

A contact can write megabytes into a name, and ten thousand ids into a receipt. The worker applies
this to each event before it hands it on (`engines.neonize.worker.spool`), and the daemon to what it
is told (`engines.protocol`): a worker runs native code on what strangers send. What fits is left as
it is.

In the event, `shortened` has the fields that were cut or left out with their original sizes (bytes
of a text, items of a list), and `odd` the names of those whose value could not be and was replaced.
"""

from __future__ import annotations

import math
from typing import Any

#: The longest texts, in bytes of UTF-8. WhatsApp's own limits are 65,536 characters for a text and
#: 25 for a name: what is longer than this was written to do harm.
MAX_TEXT = 1024
LONGER_TEXTS = {"text": 4 * 65_536, "detail": 4096, "error": 4096, "message": 4096}
#: The longest address or id, in bytes. Cut, an address would be somebody else's, so it is left out.
MAX_NAME = 256
ADDRESSES = frozenset({"chat", "sender", "sender_alt", "recipient_alt", "jid", "lid"})
IDS = frozenset({"message_id", "message_ids"})
#: The most bytes of a value that is no text.
MAX_BYTES = 256 * 1024
#: The most items of a list. Receipts with more ids come as several
#: (`engines.neonize.worker.decode_events`).
MAX_ITEMS = 1000
#: The most values within each other; what lies deeper is left out.
MAX_DEPTH = 8
#: The most bytes of texts and such in one event; the log takes 512 KiB with what is around them.
MAX_EVENT = 480 * 1024
#: What SQLite stores.
MAX_NUMBER = 2**63 - 1

#: The marks in an event.
SHORTENED, ODD = "shortened", "odd"


def bounded(data: dict[str, Any]) -> dict[str, Any]:
    """An event's data within the bounds; `data` itself if it is already.

    Values of types that MessagePack has none for are left out, and named in `odd`.
    """
    if _is_small(data):
        return data
    fitting = _Fitting()
    kept = fitting.map_of(data)
    if fitting.size > MAX_EVENT:
        fitting.drop_largest(kept)
    if not fitting.sizes and not fitting.odd:
        return data
    # A part of what is no text is worth nothing.
    kept = {name: value for name, value in kept.items() if value != b"" or data[name] == b""}
    return marked(kept, fitting.sizes, fitting.odd)


def marked(data: dict[str, Any], sizes: dict[str, int], odd: set[str]) -> dict[str, Any]:
    """`data` with the marks for what was changed, beside those that it has."""
    marks: dict[str, Any] = {}
    if sizes:
        before = data.get(SHORTENED)
        marks[SHORTENED] = {**sizes, **(before if isinstance(before, dict) else {})}
    if odd:
        before = data.get(ODD)
        marks[ODD] = sorted(odd.union(before if isinstance(before, list) else []))
    return {**data, **marks}


def _is_small(data: dict[str, Any]) -> bool:
    """Whether a glance shows that nothing is beyond a bound, as of almost every event."""
    for name, value in data.items():
        kind = type(value)
        if type(name) is not str or len(name) > MAX_NAME:
            return False
        if kind is str:
            if len(value) > (MAX_TEXT if name == "text" else MAX_NAME) or not value.isascii():
                return False
        elif kind is int:
            if not -MAX_NUMBER <= value <= MAX_NUMBER:
                return False
        elif value is not None and kind is not bool:
            return False
    return len(data) < MAX_ITEMS // 10


class _Fitting:
    def __init__(self) -> None:
        self.size = 0  # of what is kept, in bytes
        self.sizes: dict[str, int] = {}
        self.odd: set[str] = set()

    def value(self, name: str, value: Any, depth: int) -> Any:
        """`value` or what is kept of it."""
        match value:
            case None | bool():
                return value
            case str():
                return self._text(name, value)
            case int() if -MAX_NUMBER <= value <= MAX_NUMBER:
                return value
            case float() if math.isfinite(value):
                return value
            case bytes() if len(value) <= MAX_BYTES:
                self.size += len(value)
                return value
            case bytes():
                self.sizes.setdefault(name, len(value))
                return b""
            case list() if depth < MAX_DEPTH:
                return self._list(name, value, depth)
            case dict() if depth < MAX_DEPTH:
                return self.map_of(value, name, depth)
        self.odd.add(name)
        return 0 if isinstance(value, int) else None

    def _text(self, name: str, text: str) -> str | None:
        packed = text.encode("utf-8", "surrogatepass") if not text.isascii() else b""
        size = len(packed) or len(text)
        is_address, is_id = name in ADDRESSES, name in IDS
        limit = MAX_NAME if is_address or is_id else LONGER_TEXTS.get(name, MAX_TEXT)
        if size > limit:
            self.sizes.setdefault(name, size)
            if is_address:
                return None
            text = (packed or text.encode())[:limit].decode(errors="ignore")
            size = limit
        elif packed and not _is_utf8(packed):
            self.odd.add(name)
            text = packed.decode(errors="replace")
        self.size += size
        return text

    def _list(self, name: str, items: list[Any], depth: int) -> list[Any]:
        if len(items) > MAX_ITEMS:
            self.sizes.setdefault(name, len(items))
            items = items[:MAX_ITEMS]
        self.size += len(items)
        return [self.value(name, item, depth + 1) for item in items]

    def map_of(self, values: dict[Any, Any], within: str | None = None, depth: int = 0) -> Any:
        """`values` or what is kept of them, where `within` is the field that they belong to."""
        if within is not None and len(values) > MAX_ITEMS:
            self.sizes.setdefault(within, len(values))
        kept = {}
        for key, value in list(values.items())[:MAX_ITEMS]:
            if isinstance(key, str) and len(key) <= MAX_NAME:
                self.size += len(key)
                name = key if within is None else f"{within}.{key}"
                kept[key] = self.value(name, value, depth + 1)
            else:
                self.odd.add(within or "?")
        return kept

    def drop_largest(self, kept: dict[str, Any]) -> None:
        """Empty values until the event is small enough: bytes first, then the largest.

        Of a list, the first items stay.
        """

        def worth(name: str) -> tuple[bool, int]:
            return isinstance(kept[name], bytes), _size(kept[name])

        for name in sorted(kept, key=worth, reverse=True):
            if self.size <= MAX_EVENT:
                return
            value = kept[name]
            self.sizes.setdefault(name, len(value) if isinstance(value, list) else _size(value))
            while self.size > MAX_EVENT and value:
                fewer = value[: len(value) // 2] if isinstance(value, list) else type(value)()
                self.size -= _size(value) - _size(fewer)
                value = fewer
            kept[name] = value


def _is_utf8(packed: bytes) -> bool:
    try:
        packed.decode()
    except UnicodeDecodeError:
        return False
    return True


def _size(value: Any) -> int:
    match value:
        case str():
            return len(value.encode("utf-8", "surrogatepass"))
        case bytes():
            return len(value)
        case list():
            return sum(1 + _size(each) for each in value)
        case dict():
            return sum(len(str(name)) + _size(each) for name, each in value.items())
    return 0
