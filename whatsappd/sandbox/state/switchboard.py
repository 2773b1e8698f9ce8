"""The middle of the sandbox: hands stanzas to devices, and keeps what they have not acknowledged.

Handlers (`iq`, `messages`, `receipts`, …) are plain functions that run to completion: they read
and change the registry, and send through the switchboard, which never waits. Whoever called them,
usually a connection that read some frames, calls `flush` afterwards: it commits the store once and
then sends each client what has gathered for it in one piece.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

import trio

from whatsappd.model.jid import USER_SERVER, Jid
from whatsappd.sandbox.protocol.stanza import Attrs, Codec, Node
from whatsappd.sandbox.state.accounts import Device, Queued, QueueKey, Registry
from whatsappd.sandbox.state.faults import Faults
from whatsappd.sandbox.state.groups import Groups
from whatsappd.sandbox.state.statistics import Statistics
from whatsappd.sandbox.state.store import Store

if TYPE_CHECKING:
    from whatsappd.sandbox.phones.pairing import Offer
    from whatsappd.sandbox.server.connection import Connection

#: Stanzas a client may have without having acknowledged them; the rest waits its turn. whatsmeow
#: keeps order for 2048 only.
MAX_IN_FLIGHT = 1000
#: The mark in a backlog behind what had waited for the client.
END_OF_OFFLINE: QueueKey = ()

#: Seconds that everything takes to a client, unless set otherwise. No network is faster, and
#: clients rely on that: one that finishes its handshake in the next turn of its loop would take the
#: first stanza for a part of it.
LATENCY_S = 0.002

#: The server's own address.
SERVER = Jid("", USER_SERVER)


def queue_key(node: Node) -> QueueKey:
    """What a stanza for a device, and that device's acknowledgement of it, have in common."""
    attrs = node.attrs
    return (
        node.tag,
        node.text("id"),
        str(attrs.get("from", "")),
        str(attrs.get("participant", "")),
        # Several receipts for one message differ by type; clients echo it except for messages.
        "" if node.tag == "message" else node.text("type"),
    )


def now() -> str:
    """The time as stanzas carry it: whole seconds since the epoch."""
    return str(int(time.time()))


class Switchboard:
    """Everything handlers need, and the only way out to clients."""

    def __init__(self, store: Store, codec: Codec, *, latency_s: float = LATENCY_S) -> None:
        self.store = store
        self.latency_s = latency_s
        self.codec = codec
        self.registry = Registry(store)
        self.groups = Groups(store, self.registry)
        self.statistics = Statistics()
        self.faults = Faults()
        self.connections: set[Connection] = set()
        #: The QR codes that clients show, by reference, and until when (monotonic).
        self.references: OrderedDict[str, tuple[Offer, float]] = OrderedDict()
        #: Whose device list was asked for by whom (phones): they are told when it changes.
        self.watchers: dict[str, set[str]] = {}
        self._dirty: dict[Connection, None] = {}
        self._changed: trio.Event | None = None
        self._ids = count(1)
        for seq, row, stanza in store.read("SELECT seq, device, stanza FROM queue ORDER BY seq"):
            key = queue_key(codec.decode(stanza))
            self.registry.devices_by_row[row].queue[key] = Queued(seq, stanza)

    def next_id(self) -> str:
        """An id for a request of the server's own."""
        return str(next(self._ids))

    # --- to clients ---------------------------------------------------------------------------

    def send(self, connection: Connection, node: Node) -> None:
        """Send a stanza on a connection, with the next flush."""
        connection.enqueue(self.codec.encode(node))
        self._dirty[connection] = None

    def deliver(self, device: Device, node: Node) -> None:
        """Give a stanza to a device, now or when it comes back, until it acknowledges it."""
        stanza = self.codec.encode(node)
        key = queue_key(node)
        # A newer one with the same key (a resend) replaces the older, at the end of the queue.
        self.settle(device, key)
        device.queue[key] = Queued(self.store.enqueue(device.row, stanza), stanza)
        connection = device.connection
        if connection is None or not connection.active:
            self.statistics.queued_offline += 1
        elif connection.backlog or len(connection.in_flight) >= MAX_IN_FLIGHT:
            connection.backlog.append(key)
        else:
            connection.in_flight.add(key)
            connection.enqueue(stanza)
            self._dirty[connection] = None

    def settle(self, device: Device, key: QueueKey) -> bool:
        """The device acknowledged a stanza; False if none was waiting under that key."""
        queued = device.queue.pop(key, None)
        if queued is None:
            return False
        self.store.dequeue(queued.seq)
        connection = device.connection
        if connection is not None:
            connection.in_flight.discard(key)
            if connection.backlog:
                self._work_off(connection, device)
        return True

    def activate(self, connection: Connection) -> None:
        """Hand a client everything that waited for it; from here on, stanzas come live."""
        device = connection.device
        if device is None or connection.active:
            return
        connection.active = True
        connection.waited = len(device.queue)
        kinds = Counter(key[0] for key in device.queue)
        counts: Attrs = {kind: str(kinds[kind]) for kind in ("message", "receipt", "notification")}
        preview = Node(
            "offline_preview", {"count": str(connection.waited), "appdata": "0", **counts}
        )
        self.send(connection, Node("ib", {"from": SERVER}, [preview]))
        connection.backlog.extend(device.queue)
        connection.backlog.append(END_OF_OFFLINE)
        self.statistics.redelivered += connection.waited
        self._work_off(connection, device)

    def _work_off(self, connection: Connection, device: Device) -> None:
        """Send from the backlog as much as may be in flight."""
        while connection.backlog and len(connection.in_flight) < MAX_IN_FLIGHT:
            key = connection.backlog.popleft()
            if key == END_OF_OFFLINE:
                done = Node("offline", {"count": str(connection.waited)})
                connection.waited = 0
                self.send(connection, Node("ib", {"from": SERVER}, [done]))
            elif (queued := device.queue.get(key)) is not None:
                connection.in_flight.add(key)
                stanza = queued.stanza
                if connection.waited:
                    node = self.codec.decode(stanza)
                    left = str(len(connection.backlog))
                    stanza = self.codec.encode(node._replace(attrs={**node.attrs, "offline": left}))
                connection.enqueue(stanza)
                self._dirty[connection] = None

    def flush(self) -> None:
        """Commit, then send what has gathered for each client."""
        self.store.commit()
        dirty, self._dirty = self._dirty, {}
        for connection in dirty:
            connection.flush()
        self.note_change()

    # --- who is there -------------------------------------------------------------------------

    def note_change(self) -> None:
        """Wake those who wait for something to become true."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; it is asked again after everything that happens."""
        while not condition():
            if self._changed is None:
                self._changed = trio.Event()
            await self._changed.wait()

    def online(self, phone: str | None) -> list[Connection]:
        """The logged-in connections of a phone's devices; of all phones if None."""
        return [
            connection
            for connection in self.connections
            if connection.device is not None
            and (phone is None or connection.device.account.phone == phone)
        ]
