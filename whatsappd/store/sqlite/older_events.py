"""Brings logged events of older versions into the shape of today: see migration 19."""

from __future__ import annotations

import sqlite3

from whatsappd.errors import Malformed, TooLarge
from whatsappd.model.older_events import in_todays_shape
from whatsappd.wire.frames import pack, unpack


def add_functions(conn: sqlite3.Connection) -> None:
    """What the migration calls."""
    conn.create_function("in_todays_shape", 1, event_in_todays_shape, deterministic=True)


def event_in_todays_shape(packed: bytes) -> bytes:
    """A packed event about a message or a receipt; as it is, if it is of today's shape already."""
    try:
        event = unpack(packed)
        data = event["data"]
        told = in_todays_shape(data)
        return packed if told is data else pack({**event, "data": told})
    except (Malformed, TooLarge, TypeError, KeyError, AttributeError):
        return packed  # not as any version of ours wrote it
