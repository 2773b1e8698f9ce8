"""A living sandbox: a client that is let in, and then says what no client says.

Whatever it is, another client of the same sandbox is answered afterwards on the connection that it
had before, and the one that says it is either answered, too, or its connection ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import hostile
import trio
from hypothesis import strategies as st
from live import Live
from targets import Target
from wire_client import WireClient

from whatsappd.errors import SandboxFailed
from whatsappd.model.jid import Jid
from whatsappd.sandbox.protocol.node import SERVER, Node
from whatsappd.sandbox.server.sandbox import Sandbox
from whatsappd.wire.frames import pack

HOSTILE, INNOCENT, THIRD = "15550100", "15550101", "15550102"
PHONES = tuple(Jid(phone, "s.whatsapp.net") for phone in (HOSTILE, INNOCENT, THIRD))
#: These stand for what only the running sandbox knows: LIDs, and the id of a group.
LIDS = tuple(Jid(phone, "lid") for phone in (HOSTILE, INNOCENT, THIRD))
GROUP = Jid("group", "g.us")

# --- what is said -----------------------------------------------------------------------------

jids = st.one_of(
    st.sampled_from((*PHONES, *LIDS, GROUP, SERVER)),
    st.builds(
        lambda jid, device: jid._replace(device=device),
        st.sampled_from((*PHONES, *LIDS)),
        st.sampled_from((0, 1, 1, 1, 2, 99, 255)),
    ),
    st.sampled_from(
        (Jid("", "g.us"), Jid("120363000000000000", "g.us"), Jid("status", "broadcast"),
         Jid("1", "newsletter"), Jid("", ""), Jid("x" * 300, "lid"), Jid("15550199", "c.us"))
    ),
)  # fmt: skip
message_ids = st.sampled_from(("M1", "M2", "M3", "", "r1", "1", "2")) | hostile.texts
encs = st.builds(
    Node,
    st.just("enc"),
    st.fixed_dictionaries({"v": st.just("2"), "type": st.sampled_from(("msg", "pkmsg", "skmsg"))}),
    st.binary(max_size=80),
)
texts = st.sampled_from(("", "0", "-1", "1e9", "9" * 400, "retry", "read", "lid")) | hostile.texts


def node(tag: str, attrs: dict[str, Any], *content: Any) -> st.SearchStrategy[Node]:
    return around(tag, st.tuples(*content).map(list), **attrs)


def some(element: st.SearchStrategy[Node]) -> st.SearchStrategy[list[Node]]:
    return st.lists(element, max_size=3)


def around(tag: str, content: Any, **attrs: Any) -> st.SearchStrategy[Node]:
    return st.builds(Node, st.just(tag), st.fixed_dictionaries(attrs), content)


def request(namespace: str, kind: str, *content: Any) -> st.SearchStrategy[Node]:
    attrs = {"id": message_ids, "xmlns": st.just(namespace), "type": st.just(kind)}
    return node("iq", {**attrs, "to": st.sampled_from((SERVER, GROUP))}, *content)


empty = [st.builds(Node, st.sampled_from(("count", "digest", "active", "passive", "query")))]
users = around("user", st.none(), jid=jids)
contacts = around("user", around("contact", st.binary(max_size=20)).map(lambda each: [each]))
signed = node(
    "skey",
    {},
    *(around(name, st.binary(min_size=size, max_size=size))
      for name, size in (("id", 3), ("value", 32), ("signature", 64))),
)  # fmt: skip
one_time = node(
    "key",
    {},
    *(around(name, st.binary(min_size=size, max_size=size))
      for name, size in (("id", 3), ("value", 32))),
)  # fmt: skip
protocols = around(
    "query",
    st.lists(
        st.builds(Node, st.sampled_from(("contact", "lid", "devices", "x")),
                  st.sampled_from(({}, {"addressing_mode": "lid"}))),
        max_size=3,
    ),
)  # fmt: skip

iqs = st.one_of(
    *(request(namespace, "get", *empty) for namespace in ("w:p", "encrypt", "w:g2", "md", "x")),
    *(request(namespace, "get") for namespace in ("privacy", "blocklist", "abt", "w")),
    request("passive", "set", *empty),
    request("encrypt", "get", around("key", some(users))),
    request("encrypt", "set", around("rotate", signed.map(lambda each: [each]))),
    request(
        *("encrypt", "set", around("registration", st.binary(min_size=4, max_size=4))),
        around("identity", st.binary(min_size=32, max_size=32)),
        *(signed, around("list", some(one_time))),
    ),
    request(
        *("usync", "get"),
        around(
            "usync",
            st.tuples(protocols, around("list", some(users | contacts))).map(list),
            sid=texts, mode=texts,
        ),
    ),
    request(
        "w:g2", "set", around("create", some(around("participant", st.none(), jid=jids)),
                              subject=texts, key=texts),
    ),
    request("w:g2", "set", around("leave", some(around("group", st.none(), id=jids)))),
    request("md", "set", around("remove-companion-device", st.none(), jid=jids, reason=texts)),
    st.builds(Node, st.just("iq"), st.fixed_dictionaries(
        {"id": message_ids, "type": st.sampled_from(("result", "error")), "to": st.just(SERVER)})),
)  # fmt: skip
participants = around("participants", some(around("to", encs.map(lambda each: [each]), jid=jids)))
messages = st.one_of(
    node("message", {"id": message_ids, "to": jids, "type": texts}, participants),
    node("message", {"id": message_ids, "to": jids}, participants, encs),
    node("message", {"id": message_ids, "to": jids, "participant": jids}, encs),
    node("message", {"id": message_ids, "to": jids, "phash": texts, "edit": texts}, encs),
)
others = st.one_of(
    around(
        "receipt",
        st.none() | some(around("list", some(around("item", st.none(), id=message_ids)))),
        id=message_ids, to=jids, type=texts,
    ),
    around("receipt", st.none(), id=message_ids, to=jids, participant=jids, recipient=jids),
    around(
        "ack",
        st.none(),
        id=message_ids, to=jids, type=texts,
        **{"class": st.sampled_from(("message", "receipt", "notification", "x"))},
    ),
    around("presence", st.none(), type=texts, name=texts),
    around("chatstate", some(st.builds(Node, st.sampled_from(("composing", "paused")))), to=jids),
    st.builds(Node, st.sampled_from(("ib", "call", "notification", "stream:error", "success"))),
)  # fmt: skip
#: As many of each: most kinds are requests.
right = st.sampled_from((iqs, messages, others)).flatmap(lambda kind: kind)


@st.composite
def wronged(draw: st.DrawFn, node: Node) -> Node:
    """`node` with something at its top or further down changed."""
    tag, attrs, content = node
    attrs = dict(attrs)
    match draw(st.integers(0, 6)):
        case 0:
            tag = draw(st.sampled_from(("iq", "message", "receipt", "ack", "x", "xmlstreamend")))
        case 1 if attrs:
            attrs.pop(draw(st.sampled_from(list(attrs))))
        case 2 if attrs:
            attrs[draw(st.sampled_from(list(attrs)))] = draw(jids | texts)
        case 3:
            attrs[
                draw(st.sampled_from(("participant", "recipient", "category", "xmlns", "id")))
            ] = draw(jids | texts)
        case 4:
            content = draw(st.one_of(st.none(), st.binary(max_size=99), texts, some(right)))
        case 5 if isinstance(content, list) and content:
            place = draw(st.integers(0, len(content) - 1))
            content = list(content)
            content[place] = draw(wronged(content[place]))
        case _:
            pass
    return Node(tag, attrs, content)  # fmt: skip


class Damage(NamedTuple):
    """A change of an encoded stanza, at a part of its length."""

    place: float
    gone: int
    new: bytes
    is_compressed: bool

    def of(self, data: bytes) -> bytes:
        place = int(self.place * len(data))
        return data[:place] + self.new + data[place + self.gone :]


damages = st.none() | st.builds(
    Damage,
    st.floats(0, 1),
    st.integers(0, 40),
    st.binary(max_size=6),
    st.booleans(),
)
stanzas = st.lists(st.tuples(right | right.flatmap(wronged), damages), min_size=1, max_size=6)
said = st.tuples(st.sampled_from(("logged in", "logged in", "to be paired", "scanned")), stanzas)


def _named(value: Any, names: dict[Jid, Jid]) -> Any:
    """`value` with what stands for what only the running sandbox knows replaced."""
    match value:
        case Node(tag, attrs, content):
            known = {name: _named(each, names) for name, each in attrs.items()}
            return Node(tag, known, _named(content, names))
        case list():
            return [_named(each, names) for each in value]
        case Jid(user, server, device) if (found := names.get(Jid(user, server))) is not None:
            return found._replace(device=device)
    return value


# --- to whom ----------------------------------------------------------------------------------


class Innocent(WireClient):
    """Acknowledges what it gets, as clients do: else it would pile up for it."""

    async def receive(self) -> Node:
        got = await super().receive()
        if got.tag in ("message", "receipt", "notification"):
            ack = {"class": got.tag, "id": got.text("id"), "to": got.attrs.get("from", SERVER)}
            echoed = {name: got.attrs[name] for name in ("participant", "type")
                      if name in got.attrs and (got.tag, name) != ("message", "type")}  # fmt: skip
            await self.send(Node("ack", {**ack, **echoed}))
        return got


class Host:
    """A sandbox with an innocent client, and one that is not."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self.sandbox = sandbox
        self._directory = directory
        self.names: dict[Jid, Jid] = {}
        self._hostile: WireClient | None = None

    def _new(self, kind: type[WireClient] = WireClient) -> WireClient:
        return kind(self.sandbox.info().port, self._directory)

    async def open(self) -> None:
        self.innocent = await (await self._new(Innocent).pair(self.sandbox, INNOCENT)).log_in()
        self.sandbox.register(THIRD)
        member = Node("participant", {"jid": PHONES[0]})
        self.sandbox.register(HOSTILE)
        create = Node("create", {"subject": "s", "key": "k"}, [member])
        made = (await self.innocent.request("w:g2", "set", create)).child("group")
        assert made is not None
        self.names[GROUP] = Jid(made.text("id"), "g.us")
        phones = self.sandbox.stats()["phones"]
        for lid in LIDS:
            user, _, _ = phones[lid.user]["lid"].partition("@")
            self.names[lid] = Jid(user, "lid")

    async def hear(self, how: str, what: list[tuple[Node, Damage | None]]) -> None:
        before = self.sandbox.stats()["defects"]
        if how == "logged in":
            await self._hear_logged_in(what)
        else:
            await self._hear_new(what, is_scanned=how == "scanned")
        answer = await self.innocent.request("w:p", "get")
        assert answer.text("type") == "result"
        stats = self.sandbox.stats()
        assert stats["defects"] == before, "a defect ended its connection"
        pack(stats)
        [device] = stats["phones"][INNOCENT]["devices"]
        assert device["online"]

    async def _hear_logged_in(self, what: list[tuple[Node, Damage | None]]) -> None:
        client = self._hostile
        if client is None:
            client = self._hostile = await self._new().pair(self.sandbox, HOSTILE)
            await client.log_in()
        sent = [self._encoded(client, *each) for each in what]
        answered = False
        async with trio.open_nursery() as nursery:

            async def be_answered() -> None:
                nonlocal answered
                with suppress(EOFError, trio.BrokenResourceError):
                    await client.send_encoded(*sent)
                    await client.request("w:p", "get")
                    answered = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(be_answered)
            # Who unlinks itself is not answered any more.
            await self.sandbox.wait_until(lambda: not self._devices())
            nursery.cancel_scope.cancel()
        if not self._devices():
            await client.close()
            self._hostile = None
        elif not answered:
            await client.close()
            await client.log_in()

    def _devices(self) -> list[Any]:
        devices: list[Any] = self.sandbox.stats()["phones"][HOSTILE]["devices"]
        return devices

    async def _hear_new(self, what: list[tuple[Node, Damage | None]], *, is_scanned: bool) -> None:
        client = self._new()
        code = await client.offer()
        sent = [self._encoded(client, *each) for each in what]

        async def scan() -> None:
            with suppress(SandboxFailed):
                await self.sandbox.scan(code, THIRD)

        async with trio.open_nursery() as nursery:
            if is_scanned:
                nursery.start_soon(scan)
                await client.expect("iq")
            with suppress(EOFError, trio.BrokenResourceError):
                await client.send_encoded(*sent)
                await client.request("w:p", "get")
            await client.close()

    def _encoded(self, client: WireClient, node: Node, damage: Damage | None) -> bytes:
        encoded = client.codec.encode(_named(node, self.names))
        if damage is None:
            return encoded
        encoded = damage.of(encoded)
        return (b"\2" if damage.is_compressed else b"\0") + encoded[1:]


@asynccontextmanager
async def _opened() -> AsyncIterator[Host]:
    with tempfile.TemporaryDirectory(prefix="wf-") as directory:
        sandbox = Sandbox(Path(directory))
        async with trio.open_nursery() as nursery:
            await nursery.start(sandbox.serve)
            host = Host(sandbox, Path(directory))
            await host.open()
            yield host
            nursery.cancel_scope.cancel()


@cache
def host() -> Live[Host]:
    return Live(_opened)


def check_said(given: tuple[str, list[tuple[Node, Damage | None]]]) -> None:
    live = host()
    live.run(live.subject.hear, *given)


TARGETS = [Target("stanzas to a living sandbox", said, check_said)]
