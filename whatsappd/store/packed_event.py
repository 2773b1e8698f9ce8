"""An event as the log keeps it: packed once, and within the limit."""

from __future__ import annotations

from whatsappd.errors import TooLarge
from whatsappd.model.event import MAX_EVENT_BYTES, Event
from whatsappd.model.stored_event import StoredEvent
from whatsappd.wire.frames import pack


def packed_event(event: Event, position: int) -> StoredEvent:
    """`event`, to be kept behind `position` bytes of earlier ones. Raises TooLarge."""
    packed = pack(event.as_wire())
    if len(packed) > MAX_EVENT_BYTES:
        raise TooLarge(
            f"an event of type {event.type} has {len(packed)} bytes; "
            f"the limit is {MAX_EVENT_BYTES}",
            limit=MAX_EVENT_BYTES,
        )
    return StoredEvent(event.seq, event.company, event.type, position, packed)
