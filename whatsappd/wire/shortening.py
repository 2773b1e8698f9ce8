"""Bounds the size of events: fields that are too large are cut, and the event names them.

A contact can write megabytes into a name, and ten thousand ids into a receipt. The worker applies
this to each event before it hands it on (`engines.neonize.worker.spool`), and the daemon to what it
is told (`engines.protocol`): a worker runs native code on what strangers send. What fits is left as
it is.

In the event, `shortened` has the fields that were cut or left out with their original sizes (bytes
of a text, items of a list), and `odd` the names of those whose value could not be and was replaced.
A field within another is named by its path: `content.text`, `sender.name`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

#: The longest texts, in bytes of UTF-8, by the last part of their names. WhatsApp's own limits are
#: 65,536 characters for a text and 25 for a name: what is longer than this was written to do harm.
MAX_TEXT = 1024
LONGER_TEXTS = {"text": 4 * 65_536, "detail": 4096, "error": 4096, "message": 4096}
#: The most characters of any text.
MAX_CHARACTERS = 65_536
#: The longest address or id, in bytes. Cut, an address would be somebody else's, so it is left out.
MAX_NAME = 256
ADDRESSES = frozenset({"chat", "sender", "jid", "lid", "phone"})
IDS = frozenset({"message_id", "message_ids"})
#: The most bytes of a value that is no text.
MAX_BYTES = 256 * 1024
#: The most items of a list. Receipts with more ids come as several
#: (`engines.neonize.worker.decode_events`).
MAX_ITEMS = 1000
#: The most values within each other; what lies deeper is left out.
MAX_DEPTH = 8
#: The most bytes of texts and such in one event. The log takes 768 KiB: with what is around them,
#: and with the `text` that stands beside the content of a message.
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


def _is_small(data: dict[str, Any], depth: int = 0) -> bool:
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
        elif kind is dict:
            if depth == _GLANCE or not _is_small(value, depth + 1):
                return False
        elif (value and kind is not bool) or kind in (float, bytes):
            return False
    return len(data) < MAX_ITEMS // 10


#: Maps within each other that are glanced at; a message in a chat has two.
_GLANCE = 2


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
        last = name.rpartition(".")[2]
        is_address, is_id = last in ADDRESSES, last in IDS
        limit = MAX_NAME if is_address or is_id else LONGER_TEXTS.get(last, MAX_TEXT)
        if size > limit or len(text) > MAX_CHARACTERS:
            self.sizes.setdefault(name, size)
            if is_address:
                return None
            text = (packed or text.encode())[:limit].decode(errors="ignore")[:MAX_CHARACTERS]
            size = len(text.encode())
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
            if not isinstance(key, str) or len(key) > MAX_NAME:
                self.odd.add(within or "?")
                continue
            self.size += len(key)
            name = key if within is None else f"{within}.{key}"
            fitting = self.value(name, value, depth + 1)
            # A part of what is no text is worth nothing.
            if fitting != b"" or value == b"":
                kept[key] = fitting
        return kept

    def drop_largest(self, kept: dict[str, Any]) -> None:
        """Empty values until the event is small enough: bytes first, then the largest.

        Of a list, the first items stay.
        """

        def worth(part: _Part) -> tuple[bool, int]:
            value = part.values[part.key]
            return isinstance(value, bytes), _size(value)

        for part in sorted(_parts(kept), key=worth, reverse=True):
            if self.size <= MAX_EVENT:
                return
            value = part.values[part.key]
            size = len(value) if isinstance(value, list) else _size(value)
            self.sizes.setdefault(part.name, size)
            while self.size > MAX_EVENT and value:
                fewer = value[: len(value) // 2] if isinstance(value, list) else type(value)()
                self.size -= _size(value) - _size(fewer)
                value = fewer
            if value == b"":
                del part.values[part.key]
            else:
                part.values[part.key] = value


class _Part(NamedTuple):
    """One value of an event: `values[key]`, where `name` is its path."""

    values: dict[str, Any]
    key: str
    name: str


def _parts(values: dict[str, Any], within: str = "") -> Iterator[_Part]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _parts(value, f"{within}{key}.")
        else:
            yield _Part(values, key, f"{within}{key}")


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
