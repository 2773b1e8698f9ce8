"""Keeps events from WhatsApp until the daemon confirms them, so that a crash loses none.

whatsmeow acknowledges a message to WhatsApp beside handing it on, so the worker holds the only copy
until the daemon has it on disk. Each event has a number, one above the one before it, across all
workers of a company. The daemon stores with the events how far it came, and tells the worker.

Each event is written into a file of the company's directory before the daemon gets it, so it
survives this process however that ends: killed, out of memory, by a panic of Go's. (It is not
synced: the host's end is the daemon's end, too, and then only an orderly one saves it.) The next
worker brings what the file holds, without what the daemon turned out to have.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

from whatsappd.engines.protocol import EVENT, EventKind, EventOnWire, parse_event, unpackable
from whatsappd.errors import InvalidParams, Malformed, TooLarge
from whatsappd.model.older_events import in_todays_shape
from whatsappd.wire.account_keys import is_plumbing, without_keys
from whatsappd.wire.frames import READ_SIZE, MessagePackReader
from whatsappd.wire.rpc import Notification, named_arguments, pack_notification, parse_message
from whatsappd.wire.shortening import bounded

#: How each event in a file begins. No text holds these bytes, because they are no UTF-8: behind
#: damage, they are where reading goes on.
_BEGINNING = pack_notification(EVENT, {})[:-1]
#: With this many bytes in the file, it is written anew with what is still unconfirmed.
_LONG = 1 << 20


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
        self._descriptor = -1
        self._length = 0  # of the file
        self._is_complete = True  # whether it holds all that is unconfirmed
        for event in _load(file):
            assert event.number is not None
            if event.number > self._number:  # also of two with the same number, only one
                self._keep(event)
        self._try_to_begin_anew()

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def waiting(self) -> list[bytes]:
        """The packed events, in order, that nobody has confirmed."""
        with self._lock:
            return [packed for _, packed in self._unconfirmed]

    def add(self, event: EventOnWire) -> bytes:
        """Number an event, keep it, and give it back packed, within `wire.shortening`."""
        with self._lock:
            packed = self._keep(event._replace(number=self._number + 1))
            self._append(packed)
            return packed

    def confirmed(self, number: int) -> None:
        """The daemon has everything up to `number` on disk."""
        with self._lock:
            while self._unconfirmed and self._unconfirmed[0][0] <= number:
                self._unconfirmed.popleft()
            if not self._unconfirmed:
                self._empty()
            elif self._length > _LONG and self._length > 2 * self._waiting_bytes():
                self._try_to_begin_anew()

    def save(self) -> None:
        """Leave what is unconfirmed to the next worker, on disk.

        Raises:
            OSError: the disk does not take it.
        """
        with self._lock:
            # Also an empty one: what is added until the process ends goes into it.
            self._begin_anew(sync=True)

    def _keep(self, event: EventOnWire) -> bytes:
        event = event._replace(data=bounded(event.data))
        try:
            packed = pack_notification(EVENT, event.as_arguments())
        except Malformed as error:
            packed = pack_notification(EVENT, unpackable(event, error).as_arguments())
        assert event.number is not None
        self._number = event.number
        self._unconfirmed.append((event.number, packed))
        return packed

    # --- the file; a disk that is full costs what it is for, and nothing else ---------------------

    def _append(self, packed: bytes) -> None:
        try:
            if not self._is_complete:
                self._begin_anew(sync=False)
                return
            self._length += len(packed)
            if os.write(self._descriptor, packed) < len(packed):
                self._is_complete = False
        except OSError as error:
            self._complain(error)

    def _empty(self) -> None:
        try:
            os.ftruncate(self._descriptor, 0)
            self._length, self._is_complete = 0, True
        except OSError as error:
            self._complain(error)

    def _try_to_begin_anew(self) -> None:
        try:
            self._begin_anew(sync=False)
        except OSError as error:
            self._complain(error)

    def _begin_anew(self, *, sync: bool) -> None:
        """A file of what is unconfirmed now, in the place of the old one."""
        content = b"".join(packed for _, packed in self._unconfirmed)
        partial = self._file.with_name(f".{self._file.name}.partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            if sync:
                os.fsync(descriptor)
            partial.replace(self._file)
        except BaseException:
            os.close(descriptor)
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._length, self._is_complete = descriptor, len(content), True

    def _waiting_bytes(self) -> int:
        return sum(len(packed) for _, packed in self._unconfirmed)

    def _complain(self, error: OSError) -> None:
        if self._is_complete:
            logging.getLogger(__name__).error("%s cannot be written: %s", self._file.name, error)
        self._is_complete = False


def _load(file: Path) -> list[EventOnWire]:
    """What an earlier worker left.

    A file that cannot be understood must not stop this one: what can be is taken, and the file is
    kept beside, for whoever wants to know what was in it.
    """
    if not file.exists():
        return []
    content = file.read_bytes()
    events: list[EventOnWire] = []
    values, trouble = _values(content)
    for value in values:
        try:
            message = parse_message(value)
            if not isinstance(message, Notification):
                raise Malformed("a message that is no event")
            if (event := _brought(named_arguments(message.params))) is not None:
                events.append(event)
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


def _without_plumbing(data: dict[str, Any]) -> dict[str, Any] | None:
    """A message's data without the keys that older versions left in it; None: there was no more."""
    raw = data.get("raw")
    if raw is None:
        return data
    try:
        return None if is_plumbing(raw) else {**data, "raw": without_keys(raw)}
    except (Malformed, TypeError):  # nobody knows which keys are in it
        return {name: value for name, value in data.items() if name != "raw"}


def _brought(arguments: dict[str, Any]) -> EventOnWire | None:
    """An event that an earlier worker left, perhaps one of an older version; None: it was none.

    Raises:
        Malformed: see `parse_event`.
    """
    data = arguments.get("data")
    if isinstance(data, dict):
        is_message = arguments.get("kind") == EventKind.MESSAGE
        if is_message and (data := _without_plumbing(data)) is None:
            return None
        told = in_todays_shape(data)
        if is_message and told is not data:
            # It stands in the content now. Twice, a long text would be too much for one event.
            told = {name: value for name, value in told.items() if name != "text"}
        arguments = {**arguments, "data": told}
    return parse_event(arguments)


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
    reader = MessagePackReader()
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
