"""What came from WhatsApp and is not confirmed by the daemon yet: its death must not lose it.

whatsmeow acknowledges a message to WhatsApp beside handing it on, so the worker holds the only copy
until the daemon has it on disk. Each event has a number, one above the one before it, across all
workers of a company. The daemon stores with the events how far it came, and tells the worker. When
the channel closes, what is unconfirmed goes into a file of the company's directory; the next worker
brings it, without what the daemon turned out to have.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

from whatsappd.errors import InvalidParams, Malformed, TooLarge
from whatsappd.wire.frames import READ_SIZE, FrameReader
from whatsappd.wire.rpc import Notification, named_arguments, pack_notification, parse_message
from whatsappd.wire.worker import EVENT, WorkerEvent, parse_worker_event

SPOOL = "inbox.spool"

#: The largest event that goes to the daemon, in bytes; the log takes 512 KiB.
MAX_EVENT = 500 * 1024

#: How each event in a file begins. No text holds these bytes, because they are no UTF-8: behind
#: damage, they are where reading goes on.
_BEGINNING = pack_notification(EVENT, {})[:-1]


class Spool:
    """Events are added by whatsmeow's thread, and confirmed by the one that reads the channel."""

    def __init__(self, file: Path, *, taken: int) -> None:
        """
        Args:
            taken: the number of the last event that the daemon has.
        """
        self._file = file
        self._lock = threading.Lock()
        self._unconfirmed: deque[tuple[int, bytes]] = deque()
        self._number = taken
        for event in _load(file):
            assert event.number is not None
            if event.number > self._number:  # also of two with the same number, only one
                self._keep(event)

    @property
    def waiting(self) -> list[bytes]:
        """The packed events, in order, that nobody has confirmed."""
        with self._lock:
            return [packed for _, packed in self._unconfirmed]

    def add(self, event: WorkerEvent) -> bytes:
        """Number an event, keep it, and give it back packed."""
        with self._lock:
            return self._keep(event._replace(number=self._number + 1))

    def confirmed(self, number: int) -> None:
        """The daemon has everything up to `number` on disk."""
        with self._lock:
            while self._unconfirmed and self._unconfirmed[0][0] <= number:
                self._unconfirmed.popleft()

    def save(self) -> None:
        """Leave what is unconfirmed to the next worker."""
        waiting = self.waiting
        if not waiting:
            self._file.unlink(missing_ok=True)
            return
        partial = self._file.with_name(f".{self._file.name}.partial")
        with partial.open("wb") as file:
            file.write(b"".join(waiting))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._file)

    def _keep(self, event: WorkerEvent) -> bytes:
        packed = pack_notification(EVENT, event.as_arguments())
        if len(packed) > MAX_EVENT:
            packed = pack_notification(EVENT, _shortened(event).as_arguments())
        assert event.number is not None
        self._number = event.number
        self._unconfirmed.append((event.number, packed))
        return packed


def _shortened(event: WorkerEvent) -> WorkerEvent:
    """An event too large for the log, without what makes it so."""
    data = {name: value for name, value in event.data.items() if name != "raw"}
    data["text"] = str(data.get("text", ""))[: MAX_EVENT // 8]
    return event._replace(data={**data, "shortened": True})


def _load(file: Path) -> list[WorkerEvent]:
    """What an earlier worker left.

    A file that cannot be understood must not stop this one: what can be is taken, and the file is
    kept beside, for whoever wants to know what was in it.
    """
    if not file.exists():
        return []
    content = file.read_bytes()
    events: list[WorkerEvent] = []
    values, trouble = _values(content)
    for value in values:
        try:
            message = parse_message(value)
            if not isinstance(message, Notification):
                raise Malformed("a message that is no event")
            events.append(parse_worker_event(named_arguments(message.params)))
        except (Malformed, InvalidParams) as error:
            trouble = error.message
    if trouble is not None:
        aside = file.with_name(f"{file.name}.damaged")
        file.replace(aside)
        logging.getLogger(__name__).error(
            "%s is damaged (%s): %d events were read, and it is kept as %s",
            *(file, trouble, len(events), aside.name),
        )
    return [event for event in events if event.number is not None]


def _values(content: bytes) -> tuple[list[Any], str | None]:
    """The values, but for damaged ones, and what the first damage is; None if there is none."""
    values: list[Any] = []
    trouble: str | None = None
    start = 0
    while start >= 0:
        found, end, wrong = _up_to_damage(content, start, READ_SIZE)
        values += found
        if wrong is None:
            break
        trouble = trouble or wrong
        start = content.find(_BEGINNING, end + 1)
    return values, trouble


def _up_to_damage(content: bytes, start: int, step: int) -> tuple[list[Any], int, str | None]:
    """The whole values from `start` on, where they end, and what is wrong there; None: nothing."""
    values: list[Any] = []
    end = start
    reader = FrameReader()
    try:
        for place in range(start, len(content), step):
            piece = content[place : place + step]
            values += reader.feed(piece)
            end = place + len(piece) - reader.unfinished
    except (Malformed, TooLarge) as error:
        if step > 1:
            # With the damage, the values before it in the same step are lost: go byte by byte.
            more, end, _ = _up_to_damage(content, end, 1)
            values += more
        return values, end, error.message
    return values, end, "it ends within an event" if reader.unfinished else None
