"""Events as the log keeps them, and how they are read from it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec

from whatsappd.model.event import SESSION_QR, Event

_DECODER = msgspec.msgpack.Decoder(dict[str, Any])


class StoredEvent(NamedTuple):
    """A logged event with its MessagePack bytes (`Event.as_wire()`), encoded once for everybody.

    `position` counts the packed bytes of all events before this one.
    """

    seq: int
    company: str
    type: str
    position: int
    packed: bytes

    @property
    def event(self) -> Event:
        """The event itself, decoded anew on each call."""
        return Event(**_DECODER.decode(self.packed))

    @property
    def end(self) -> int:
        return self.position + len(self.packed)


class LogFilter(NamedTuple):
    """Which events are asked for. None: all companies, all types, or all companies' QR codes."""

    companies: Collection[str] | None = None
    types: Collection[str] | None = None
    codes: Collection[str] | None = None

    @property
    def is_all(self) -> bool:
        return self.companies is None and self.types is None and self.codes is None

    def accepts(self, company: str, type_: str) -> bool:
        """Whether an event of that company and type is asked for."""
        return (
            (self.companies is None or company in self.companies)
            and (self.types is None or type_ in self.types)
            and (self.codes is None or type_ != SESSION_QR or company in self.codes)
        )


class EventBatch(NamedTuple):
    """What one read brought.

    `last` is the next cursor: every event up to it that was asked for is in `events`, or was
    handed out before. `gap` is a number above the cursor when events that were asked for are gone
    that lay between the two, else None; those in between that still exist do come.
    """

    events: list[StoredEvent]
    last: int
    gap: int | None


class EventBounds(NamedTuple):
    """How many events are kept. None: without end."""

    max_age_ms: int | None = None
    #: packed bytes of one company
    max_company_bytes: int | None = None
    #: packed bytes of all; whoever has most gives way
    max_bytes: int | None = None
