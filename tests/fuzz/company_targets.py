"""A contact of a living company: whatever they send, through the real neonize, to a real daemon.

What an innocent contact writes behind it arrives, by the same worker, and nothing of what the
daemon logged meanwhile is a defect. Any bytes are encrypted, as no client would (`contacts`).
"""

from __future__ import annotations

import atexit
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from itertools import count
from typing import Any, NamedTuple

import hostile
from contacts import Place, Raw, a_place, pb
from daemons import Events, following
from hypothesis import strategies as st
from live import Live
from targets import Target

from whatsappd.model.jid import Jid
from whatsappd.rpc.client import RpcClient
from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.state.accounts import LinkedDevice

COMPANY, MALLORY, FRIEND = "+15550100", "+15550300", "+15550301"

# --- what is said -----------------------------------------------------------------------------

texts = st.one_of(
    st.sampled_from(("0", "-1", "1e9", "9" * 30, str(2**63 - 1), str(-(2**63)))),
    st.builds(lambda: "x" * 100_000),
    st.text(min_size=1, max_size=20),
    st.binary(min_size=1, max_size=20).map(Raw),
)
jids = st.builds(
    Jid,
    st.sampled_from(("15550100", "15550300", "1-2", "a b", "status"))
    | st.builds(lambda: "9" * 10_000),
    st.sampled_from(("s.whatsapp.net", "lid", "g.us", "broadcast", "newsletter", "x.example")),
    st.sampled_from((0, 0, 1, 99, 255)),
)
fields = st.recursive(
    st.lists(
        st.tuples(
            st.integers(1, 140),
            st.sampled_from((0, 1, 5, 6, 7, 16, 2**32, 2**63, 2**64 - 1)) | st.binary(max_size=12),
        ),
        max_size=5,
    ).map(lambda found: pb(*found)),
    lambda inner: st.lists(st.tuples(st.integers(1, 140), inner), max_size=3).map(
        lambda found: pb(*found)
    ),
    max_leaves=6,
)
#: `fields` within what is most often around it: a text, an image, the protocol's own, wrappers.
messages = st.one_of(
    fields,
    st.builds(
        lambda number, inner: pb((number, inner)), st.sampled_from((6, 3, 12, 31, 49)), fields
    ),
    st.builds(lambda inner: pb((40, pb((1, inner)))), fields),
    st.builds(
        lambda depth, inner: _within(inner, depth), st.sampled_from((5, 40, 60, 500)), fields
    ),
)
plaintexts = st.one_of(hostile.damaged(messages), st.binary(max_size=60))
attrs = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("notify", "t", "type", "edit", "category", "count", "offline"), texts),
        **dict.fromkeys(("participant", "sender_pn", "recipient", "sender"), jids),
    },
)
#: neonize has numbers for these. For another it ends its loop, which has a test of its own.
receipts = st.sampled_from(("read", "played", "sender", "inactive", "retry", "peer_msg", None))
tags = st.sampled_from(
    ("set", "add", "offer", "composing", "subject", "x", "retry", "list", "keys")
)
node_attrs = st.dictionaries(st.sampled_from(("jid", "id", "t", "count")), texts | jids, max_size=3)
nodes = st.recursive(
    st.builds(Node, tags, node_attrs, st.none() | st.binary(max_size=12)),
    lambda inner: st.builds(Node, tags, st.just({}), st.lists(inner, max_size=2)),
    max_leaves=4,
)
encs = st.builds(
    Node,
    st.just("enc"),
    st.fixed_dictionaries({"v": st.sampled_from(("2", "3")),
                           "type": st.sampled_from(("msg", "pkmsg", "skmsg", "msmsg", "x"))}),
    st.binary(max_size=40),
)  # fmt: skip


class Deed(NamedTuple):
    """`what` is a method of this module's `World`."""

    what: str
    arguments: tuple[Any, ...]


deeds = st.lists(
    st.one_of(
        st.builds(Deed, st.just("write"), st.tuples(plaintexts, st.booleans(), attrs)),
        st.builds(Deed, st.just("write"), st.tuples(plaintexts, st.just(False), st.just({}))),
        st.builds(Deed, st.just("send"), st.tuples(st.lists(encs, max_size=3), attrs)),
        st.builds(
            Deed,
            st.just("receipt"),
            st.tuples(
                st.lists(texts, min_size=1, max_size=3), receipts, st.lists(nodes, max_size=2)
            ),
        ),
        st.builds(
            Deed,
            st.just("notify"),
            st.tuples(
                st.sampled_from(("notification", "call", "presence", "chatstate", "x")),
                st.sampled_from(("picture", "devices", "w:gp2", "encrypt", "account_sync", "x")),
                attrs,
                st.lists(nodes, max_size=2),
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


def _within(message: bytes, depth: int) -> bytes:
    for _ in range(depth):
        message = pb((40, pb((1, message))))
    return message


# --- who hears it -----------------------------------------------------------------------------


class World:
    def __init__(
        self, place: Place, client: RpcClient, events: Events, device: LinkedDevice
    ) -> None:
        self.place = place
        self._client = client
        self._events = events
        self._device = device
        self._mallory, self._friend = place.contact(MALLORY), place.contact(FRIEND)
        self._numbers = count()
        self._worker: int | None = None

    async def hear(self, said: list[Deed]) -> None:
        if self._worker is None:
            self._worker = await self._connected_worker()
        start = len(self._events.seen)
        for deed in said:
            getattr(self, deed.what)(*deed.arguments)
        text = f"innocent {next(self._numbers)}"
        self._friend.say(self._device, text)
        self.place.board.flush()
        await self._events.until(lambda event: event["data"].get("text") == text, start=start)
        worker, self._worker = self._worker, await self._connected_worker()
        assert self._worker == worker, self.place.daemon.log()[-2000:]
        log = self.place.daemon.log()
        assert "Traceback" not in log, log[-2000:]
        assert "worker_channel_corrupt" not in log, log[-2000:]

    async def _connected_worker(self) -> int | None:
        status = await self._client.call("session.status", company="acme")
        assert status["state"] == "connected", status
        worker: int | None = status["worker_pid"]
        return worker

    def write(self, plaintext: bytes, as_it_is: bool, given: dict[str, Any]) -> None:
        self._mallory.write(self._device, plaintext, as_it_is=as_it_is, **given)

    def send(self, content: list[Node], given: dict[str, Any]) -> None:
        self._mallory.send(self._device, content, **given)

    def receipt(self, ids: list[str], kind: str | None, content: list[Node]) -> None:
        stanza = {"from": self._mallory.account.lid, "id": ids[0], "t": "1700000000"}
        if kind is not None:
            stanza["type"] = kind
        listed = Node("list", {}, [Node("item", {"id": each}) for each in ids[1:]])
        self._mallory.passing(self._device, Node("receipt", stanza, [listed, *content]))

    def notify(self, tag: str, kind: str, given: dict[str, Any], content: list[Node]) -> None:
        sender = given.get("sender", self._mallory.account.lid)
        stanza = {**given, "from": sender, "id": "n1", "type": kind}
        stanza.pop("sender", None)
        self._mallory.passing(self._device, Node(tag, stanza, content))


@asynccontextmanager
async def _opened() -> AsyncIterator[World]:
    async with (
        a_place() as place,
        place.daemon.client() as client,
        following(client) as events,
    ):
        yield World(place, client, events, await place.link(client, events, "acme", COMPANY))


@cache
def world() -> Live[World]:
    live = Live(_opened)
    atexit.register(live.stop)  # its daemon is a process of its own
    return live


def check_deeds(said: list[Deed]) -> None:
    live = world()
    live.run(live.subject.hear, said)


TARGETS = [Target("a contact of a living company", deeds, check_deeds)]
