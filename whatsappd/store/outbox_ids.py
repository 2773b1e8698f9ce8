"""Ids of messages: 16 hex digits of time and chance, which grow with each accepted message."""

from __future__ import annotations

import re

from whatsappd.errors import unknown_message

_ID = re.compile(r"[0-9a-f]{16}\Z")
#: Bits of chance below the milliseconds of an id: room for a million rows in one millisecond.
_CHANCE_BITS = 20


def new_id(last: int, time_ms: int, chance: float) -> int:
    """An id above `last`: the time, then chance (in [0, 1)).

    Should the clock have gone back, the next number is taken: order matters more than time.
    """
    return max(last + 1, (time_ms << _CHANCE_BITS) + int(chance * (1 << (_CHANCE_BITS - 1))))


def first_id_at(time_ms: int) -> int:
    """The smallest id of a row accepted at or after `time_ms`."""
    return time_ms << _CHANCE_BITS


def id_as_text(number: int) -> str:
    return f"{number:016x}"


def id_as_number(row_id: str) -> int:
    """The number on disk. Raises UnknownMessage if the text is no row's id."""
    if not _ID.match(row_id):
        raise unknown_message(row_id)
    number = int(row_id, 16)
    if number >= 1 << 63:
        raise unknown_message(row_id)
    return number
