"""What got past a reader once, with the input that did it. Every line failed before it was mended.

A finding that is more than a wrong exception also has a test beside what it was found in.
"""

from __future__ import annotations

import json
import os
from typing import Any

import msgpack
import pytest
from answer_targets import ROW
from input_targets import INFO
from registry import TARGETS
from wire_targets import EVENTS

from whatsappd.engines.confined import Confined
from whatsappd.engines.neonize.fork.messages import pack_hello
from whatsappd.engines.protocol import EventKind

OWN = str(os.getpid())
RECEIPT = {"company": "acme", "kind": "receipt", "number": 3}
HELLO = pack_hello(None, Confined())
SUBSCRIBED = msgpack.packb([1, 1, None, {"subscription": 1}])
RECEIVED = {"company": "acme", "kind": "message", "number": 3}


def without(kind: EventKind, name: str) -> dict[str, Any]:
    return {key: value for key, value in EVENTS[kind].items() if key != name}


FINDINGS: list[tuple[str, str, Any]] = [
    ("an extension without bytes", "RPC frames", b"\xc7\x00\x05"),
    (
        "too many items, and a bad byte among them, in pieces",
        "RPC frames",
        b"\x94\x00\xdf\xff\xff\xff\x8c\xa1a\xc1",
    ),
    (
        "seconds too many for a float",
        "configuration files",
        b"sessions.recycle_rest = 0x" + b"f" * 300,
    ),
    ("JIDs within JIDs", "stanzas", b"\xf8\x01" + b"\xfa" * 5000),
    ("Facebook's JIDs within JIDs", "stanzas", b"\xf8\x01" + b"\xf6" * 5000),
    ("an error's data named message", "the daemon's errors", {"data": {"message": 1, "self": 2}}),
    (
        "an error's data that is no map",
        "the daemon's answers",
        msgpack.packb([2, "error", [{"name": "stopping", "data": 5}]]),
    ),
    (
        "a subscription without its number",
        "events to a follower",
        msgpack.packb([1, 1, None, {}]),
    ),
    (
        "an event without its place",
        "events to a follower",
        SUBSCRIBED + msgpack.packb([2, "event", [{"subscription": 1, "event": {"company": "a"}}]]),
    ),
    (
        "a gap that begins nowhere",
        "events to a follower",
        SUBSCRIBED + msgpack.packb([2, "events.gap", [{"subscription": 1}]]),
    ),
    ("an answer to what was not asked", "answers to a batch", msgpack.packb([1, 9, None, ROW])),
    ("a row that is none", "answers to a batch", msgpack.packb([1, 1, None, 5])),
    (
        "a row of no time",
        "answers to a batch",
        msgpack.packb([1, 1, None, {**ROW, "created_ms": ""}]),
    ),
    ("a fork server's hello that is none", "a fork server's words", (b"\xc1", None)),
    ("a fork server's answer that is none", "a fork server's words", (HELLO, b"\x80")),
    (
        "a worker that is this very process",
        "a fork server's words",
        (HELLO, msgpack.packb({"pid": os.getpid()})),
    ),
    (
        "a receipt that lacks its messages",
        "workers' events",
        {**RECEIPT, "data": without(EventKind.RECEIPT, "message_ids")},
    ),
    (
        "a receipt at no time",
        "workers' events",
        {**RECEIPT, "data": {**EVENTS[EventKind.RECEIPT], "timestamp_ms": 2**63}},
    ),
    (
        "a message from an address of a new kind",
        "workers' events",
        {**RECEIVED, "data": {**EVENTS[EventKind.MESSAGE], "sender": "1:x@lid"}},
    ),
    (
        "an event that says that it is another company's",
        "workers' events",
        {**RECEIVED, "company": "globex", "data": EVENTS[EventKind.MESSAGE]},
    ),
    (
        "a message from a person of a new kind",
        "workers' events",
        {**RECEIVED, "data": {**EVENTS[EventKind.MESSAGE], "sender": {"jid": "1:x@lid"}}},
    ),
    (
        "a message of a kind that is none",
        "workers' events",
        {**RECEIVED, "data": {**EVENTS[EventKind.MESSAGE], "content": {"kind": ["text"]}}},
    ),
    (
        "a number that SQLite cannot store",
        "workers' events",
        {**RECEIVED, "data": EVENTS[EventKind.MESSAGE], "number": 2**64 - 1},
    ),
    ("a truth value as number", "workers' events",
     {**RECEIVED, "data": EVENTS[EventKind.MESSAGE], "number": True}),
    ("arguments that are none", "spool files", msgpack.packb([2, "event", [None]])),
    (
        "the same number twice",
        "spool files",
        msgpack.packb([2, "event", [{**RECEIVED, "data": EVENTS[EventKind.MESSAGE]}]]) * 2,
    ),
    (
        "a description without control",
        "info files",
        json.dumps({name: value for name, value in INFO.items() if name != "control"}).encode(),
    ),
    ("a port that is a truth value", "info files", json.dumps({**INFO, "port": True}).encode()),
    ("a description that is nested deeply", "info files", b"[" * 100_000),
    ("a watchdog without time", "systemd's environment", {"WATCHDOG_USEC": "0"}),
    ("a watchdog in words", "systemd's environment", {"WATCHDOG_USEC": "soon"}),
    ("a watchdog for ages", "systemd's environment", {"WATCHDOG_USEC": "9" * 400}),
    ("sockets in words", "systemd's environment", {"LISTEN_PID": OWN, "LISTEN_FDS": "x"}),
    ("fewer than no sockets", "systemd's environment", {"LISTEN_PID": OWN, "LISTEN_FDS": "-1"}),
    ("sockets that are not", "systemd's environment", {"LISTEN_PID": OWN, "LISTEN_FDS": "99999"}),
    ("a status that is no text", "systemd's environment", {"NOTIFY_SOCKET": "@nobody"}),
    ("TOML that is nested deeply", "configuration files", b"state_dir = " + b"[" * 100_000),
    ("a number of 5000 digits", "configuration files", b"socket_mode = " + b"9" * 5000),
    ("5000 hexadecimal digits", "configuration files", b"socket_mode = 0x" + b"f" * 5000),
    ("a user with a NUL", "configuration files", b'[[access]]\nuser = "a\\u0000"'),
    ("a group with a NUL", "configuration files", b'[[access]]\ngroup = "a\\u0000"'),
    ("a group of 5000 digits", "configuration files", b'socket_group = "' + b"9" * 5000 + b'"'),
    ("no number of seconds to live", "command lines", ["send", "a", "+15550100", "x", "--ttl=nan"]),
    ("seconds without end", "command lines", ["send", "a", "+15550100", "x", "--ttl=inf"]),
    ("a call without end", "command lines", ["call", "daemon.hello", "--timeout=inf"]),
    ("JSON that is nested deeply", "command lines", ["call", "x", "[" * 100_000]),
    ("JSON with 5000 digits", "command lines", ["call", "x", '{"a": ' + "9" * 5000 + "}"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=what) for what, name, value in FINDINGS],
)
def test_what_was_found_once_is_mended(name: str, value: Any) -> None:
    [target] = [each for each in TARGETS if each.name == name]
    target.check(value)
