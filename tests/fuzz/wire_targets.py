"""What arrives at our ends of sockets: frames, RPC messages, parameters, workers' events."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

import hostile
import msgpack
import msgspec
from hypothesis import strategies as st
from message_shapes import MESSAGE, SOURCE
from targets import Target, pieces, refusing

import whatsappd.api
from whatsappd.api.checking import checked
from whatsappd.api.declaration import Params
from whatsappd.engines.decode import WorkerEvent, decode_event
from whatsappd.engines.protocol import EventKind
from whatsappd.errors import (
    InvalidParams,
    Malformed,
    TooLarge,
)
from whatsappd.sessions.inbound import arrival
from whatsappd.wire.frames import MAX_MESSAGE, READ_SIZE, MessagePackReader, pack, unpack
from whatsappd.wire.rpc import (
    Notification,
    Response,
    actor_named,
    named_arguments,
    parse_message,
)

# --- frames -----------------------------------------------------------------------------------

packed = hostile.values.map(msgpack.packb)
streams = hostile.damaged(st.lists(packed, max_size=4).map(b"".join))


def check_frames(data: bytes) -> None:
    """However it is cut, the same values come of it; and what came can be packed again."""
    whole = _values(pieces(data, READ_SIZE))
    # The values before the bad byte are given up with it. What is wrong with a value that comes in
    # pieces may be noticed when it is whole, and so behind something else that is, or never.
    for size in (1, 7):
        cut = _values(pieces(data, size))
        if whole[0] is not None:
            assert cut[0] is not None or cut[2]
        else:
            assert cut[0] is None
            assert repr(cut[1]) == repr(whole[1])  # as text: NaN is not itself
    with refusing(Malformed, TooLarge):  # as a packet, it is one value and nothing else
        assert [repr(unpack(data))] == [repr(value) for value in whole[1]]
        assert not whole[2]
    for value in whole[1]:
        pack(value)
        _check_plain(value)


def _check_plain(value: Any) -> None:
    pending = [value]
    while pending:
        each = pending.pop()
        assert type(each) in (dict, list, str, bytes, int, float, bool, type(None)), each
        pending += each if isinstance(each, list) else ()
        pending += [*each, *each.values()] if isinstance(each, dict) else ()


def _values(chunks: list[bytes]) -> tuple[type[Exception] | None, list[Any], bool]:
    """How it ended, the values, and whether it ended within one."""
    reader = MessagePackReader()
    values: list[Any] = []
    try:
        for chunk in chunks:
            values += reader.feed(chunk)
    except (Malformed, TooLarge) as error:
        assert error.message
        return type(error), values, False
    return None, values, reader.unfinished > 0


# --- RPC messages -----------------------------------------------------------------------------

methods = st.sampled_from(("daemon.hello", "message.send", "", "x" * 300)) | hostile.texts
params = st.one_of(
    hostile.values,
    st.lists(hostile.values, max_size=3),
    st.tuples(
        st.dictionaries(hostile.texts, hostile.values, max_size=3),
        st.fixed_dictionaries({"actor": hostile.texts}),
    ).map(list),
)
messages = st.one_of(
    hostile.values,
    st.tuples(st.sampled_from((0, 2, False, 3, -1)), hostile.scalars, methods, params).map(list),
    st.tuples(st.sampled_from((1, 2)), hostile.scalars, params).map(list),
)


def check_message(value: Any) -> None:
    """It is a message, or the complaint says what is wrong; the same for its arguments."""
    with refusing(Malformed):
        message = parse_message(value)
        if isinstance(message, Response):
            assert 0 <= message.msgid < 2**32
            return
        assert isinstance(message, Notification) or 0 <= message.msgid < 2**32
        assert isinstance(message.method, str)
        with refusing(InvalidParams):
            assert all(isinstance(name, str) for name in named_arguments(message.params))
        with refusing(InvalidParams):
            assert actor_named(message.params).isprintable()


# --- parameters -------------------------------------------------------------------------------


@cache
def structs() -> list[type[msgspec.Struct]]:
    """The parameters of every method that there is."""
    for module in pkgutil.iter_modules(whatsappd.api.__path__):
        importlib.import_module(f"whatsappd.api.{module.name}")
    found, pending = [], [Params]
    while pending:
        pending += (struct := pending.pop()).__subclasses__()
        found.append(struct)
    return sorted(found, key=lambda each: each.__qualname__)


@st.composite
def calls(draw: st.DrawFn) -> tuple[type[msgspec.Struct], dict[Any, Any]]:
    struct = draw(st.sampled_from(structs()))
    fields = [field.encode_name for field in msgspec.structs.fields(struct)]
    names = st.sampled_from(fields) if fields else hostile.texts
    if draw(st.integers(0, 4)) == 0:
        names = names | hostile.texts
    return struct, draw(st.dictionaries(names, hostile.values, max_size=len(fields) + 1))


def check_params(call: tuple[type[msgspec.Struct], dict[Any, Any]]) -> None:
    """The struct, or a complaint that begins with the field's name."""
    struct, arguments = call
    with refusing(InvalidParams):
        assert isinstance(checked(named_arguments([arguments]), struct), struct)


# --- workers ----------------------------------------------------------------------------------

#: An event as a worker sends it, by its kind.
EVENTS: dict[EventKind, dict[str, Any]] = {
    EventKind.QR: {"code": "2@x"},
    EventKind.PAIRING_ENDED: {"end": "over", "detail": ""},
    EventKind.PAIRED: {"jid": "1@lid", "business_name": "", "platform": "android"},
    EventKind.PAIR_ERROR: {"error": "no"},
    EventKind.CONNECTED: {"jid": "15550100:1@s.whatsapp.net", "lid": "1:1@lid", "push_name": None},
    EventKind.KEEPALIVE_TIMEOUT: {"error_count": 1, "last_success_ms": 1},
    EventKind.LOGGED_OUT: {"on_connect": True, "reason": 401},
    EventKind.TEMPORARY_BAN: {"code": 101, "expire_s": 60},
    EventKind.CONNECT_FAILURE: {"reason": 503, "message": ""},
    EventKind.STREAM_ERROR: {"code": "503"},
    EventKind.ENDED: {"error": None},
    EventKind.MESSAGE: MESSAGE,
    EventKind.RECEIPT: {
        "message_ids": ["A"], "receipt": "read", "timestamp_ms": 1, **SOURCE,
    },
    EventKind.UNDECRYPTABLE: {
        "message_id": "A", "timestamp_ms": 1, "unavailable": False, **SOURCE,
    },
}  # fmt: skip


@st.composite
def worker_events(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(EventKind))
    data = dict(EVENTS.get(kind, {}))
    for name in draw(st.lists(st.sampled_from(list(data)), max_size=3)) if data else ():
        if draw(st.booleans()):
            data[name] = draw(hostile.values)
        else:
            data.pop(name, None)
    event: dict[str, Any] = {"company": "acme", "kind": str(kind), "data": data, "number": None}
    event["number"] = draw(st.none() | st.integers(1, 9) | hostile.scalars)
    if draw(st.integers(0, 3)) == 0:
        event[draw(st.sampled_from(list(event)))] = draw(hostile.values)
    return event


def check_worker_event(value: Any) -> None:
    """What is taken for an event can be stored; all else is refused before anybody acts on it."""
    with refusing(Malformed, InvalidParams):
        event = decode_event(named_arguments([value]))
        assert isinstance(event, WorkerEvent)
        assert event.number is None or (type(event.number) is int and 0 < event.number < 2**63)
        if event.is_inbound:
            stored = arrival("acme", event)
            assert stored.draft.company == "acme"
            assert stored.receipt is None or -(2**63) <= stored.receipt.time_ms < 2**63


REQUEST = msgpack.packb([0, 1, "session.start", [{"company": "acme", "watch": True}]])
TARGETS = [
    Target(
        "RPC frames",
        streams,
        check_frames,
        (REQUEST, msgpack.packb([2, "event", [{"a": [1.5, None, b"x"]}]]) * 2),
    ),
    Target("RPC messages", messages, check_message),
    Target("RPC parameters", calls(), check_params),
    Target("workers' events", worker_events(), check_worker_event),
]

assert len(REQUEST) < MAX_MESSAGE
