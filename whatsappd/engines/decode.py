"""Decodes and checks what workers send: maps become the classes of `engines.protocol`.

An event with wrong contents becomes an `UnreadableEvent`, and the events beside it are kept. Data
that is no event at all means that the worker is broken; the worker is ended then.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from whatsappd.engines.protocol import (
    ANSWERS,
    EVENTS,
    REFUSED,
    ClientEvent,
    EventKind,
    InboundEvent,
    SendRefusal,
    UnreadableEvent,
    WorkerAnswer,
    WorkerMethod,
    as_map,
    parse_event,
)
from whatsappd.errors import Malformed
from whatsappd.model.person import Chat, Person
from whatsappd.wire.frames import pack
from whatsappd.wire.shortening import bounded

#: Characters of a worker's reason that are kept: it goes into rows and events.
MAX_REASON = 1000


class WorkerEvent(NamedTuple):
    """An event that was checked. `data` is its map, which may hold more than `event`: the marks of
    `wire.shortening`."""

    company: str
    event: ClientEvent
    data: dict[str, Any]
    number: int | None = None  # of one from WhatsApp

    @property
    def is_from_whatsapp(self) -> bool:
        """Whether its kind is one of those that WhatsApp sends once."""
        return isinstance(self.event, InboundEvent)

    @property
    def is_inbound(self) -> bool:
        """Whether it belongs into the log: else it is news about the session."""
        if isinstance(self.event, UnreadableEvent):
            return self.number is not None
        return self.is_from_whatsapp


def decode_event(arguments: dict[str, Any]) -> WorkerEvent:
    """The event in an `event` notification's arguments.

    Raises:
        Malformed: it is none at all.
    """
    company, kind, data, number = parse_event(arguments)
    try:
        event: ClientEvent = msgspec.convert(data, EVENTS[kind])
    except msgspec.ValidationError as error:
        event, data = _refused(kind, data, f"a worker told of a wrong {kind}: {error!s:.200}")
    return WorkerEvent(company, event, data, number)


def _refused(
    kind: EventKind, data: dict[str, Any], error: str
) -> tuple[UnreadableEvent, dict[str, Any]]:
    """What is told in the place of an event that cannot be: why, and what of it can be read."""
    known = {name: data[name] for name, type_ in _KNOWN if _is_one(data, name, type_)}
    event = UnreadableEvent(
        of=str(kind), error=error, size=len(pack(data)), message_id=known.get("message_id")
    )
    return event, {**known, **as_map(event)}


#: What is kept of an event that is refused, if it can be read.
_KNOWN: tuple[tuple[str, Any], ...] = (
    ("message_id", str | None),
    ("chat", Chat | None),
    ("sender", Person | None),
    ("from_me", bool),
)


def _is_one(data: dict[str, Any], name: str, type_: Any) -> bool:
    try:
        msgspec.convert(data[name], type_)
    except (KeyError, msgspec.ValidationError):
        return False
    return True


def decode_answer(method: WorkerMethod, result: Any) -> WorkerAnswer:
    """The answer to `method`.

    Raises:
        Malformed: it is none, or beyond `wire.shortening`.
    """
    if not isinstance(result, dict):
        raise Malformed(f"a worker's answer to {method} is no map: {result!r:.200}")
    expected: type[WorkerAnswer] = ANSWERS[method]
    if method is WorkerMethod.SEND and isinstance(refusal := result.get(REFUSED), dict):
        expected, result = SendRefusal, refusal
        if isinstance(reason := refusal.get("reason"), str):
            result = {**refusal, "reason": reason[:MAX_REASON]}
    if bounded(result) is not result:
        raise Malformed(f"a worker's answer to {method} is larger than any: {result!r:.200}")
    try:
        return msgspec.convert(result, expected)
    except msgspec.ValidationError as error:
        raise Malformed(f"a worker gave a wrong answer to {method}: {error}") from error


def reason_in_error(error: Any) -> str:
    """Why a worker refused, in its words."""
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or "no reason given")[:MAX_REASON]
