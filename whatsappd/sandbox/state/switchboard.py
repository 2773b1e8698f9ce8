"""The switchboard: all state of the running sandbox, and the only way from handlers to clients.

Handlers (`server.messages`, `server.receipts`, …) are plain functions. They change the state and
send through the switchboard, which never waits. Whoever called them, usually a connection that has
read some frames, then calls `flush`: it commits the database once, and sends each client what has
gathered for it.

**Undelivered stanzas.** `deliver` writes a stanza to its device's queue, and the client's
acknowledgement removes it (`settle`). A client that logs in gets what waited in order, marked with
the attribute `offline`, between `<ib><offline_preview>` and `<ib><offline>` (whatsmeow:
connectionevents.go).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count

import trio

from whatsappd.sandbox.protocol.node import SERVER, Attrs, Node, timestamp
from whatsappd.sandbox.protocol.stanza_codec import StanzaCodec
from whatsappd.sandbox.state.accounts import (
    LinkedDevice,
    QueueKey,
    UndeliveredStanza,
    queue_key,
)
from whatsappd.sandbox.state.clients import CLOSING_DEADLINE, LAST_WORDS_GRACE, ConnectedClient
from whatsappd.sandbox.state.database import SandboxDatabase
from whatsappd.sandbox.state.faults import ArmedFaults
from whatsappd.sandbox.state.groups import GroupRegistry
from whatsappd.sandbox.state.pairing_offers import PairingOffers
from whatsappd.sandbox.state.registry import AccountRegistry
from whatsappd.sandbox.state.statistics import TrafficCounters

#: Stanzas that a client may have without having acknowledged them; the others wait. whatsmeow keeps
#: order for 2048 only.
MAX_IN_FLIGHT = 1000
#: The place in a client's backlog where what had waited for it ends.
END_OF_OFFLINE: QueueKey = ()

#: Seconds that everything takes to a client, unless set otherwise. No real network is faster, and
#: clients rely on that: whatsmeow takes a stanza that arrives while it finishes its handshake for
#: a part of the handshake.
LATENCY_S = 0.002


class Switchboard:
    """Everything that handlers need."""

    def __init__(
        self, database: SandboxDatabase, codec: StanzaCodec, *, latency_s: float = LATENCY_S
    ) -> None:
        self.database = database
        self.codec = codec
        self.latency_s = latency_s
        self.registry = AccountRegistry(database)
        self.groups = GroupRegistry(database, self.registry)
        self.statistics = TrafficCounters()
        self.faults = ArmedFaults()
        self.offers = PairingOffers()
        self.clients: set[ConnectedClient] = set()
        #: Who asked for whose device list (phones by phone): they are told when it changes.
        self.watchers: dict[str, set[str]] = {}
        self._client_of: dict[LinkedDevice, ConnectedClient] = {}
        self._unflushed: dict[ConnectedClient, None] = {}
        self._changed: trio.Event | None = None
        self._ids = count(1)
        for seq, row, stanza in database.read("SELECT seq, device, stanza FROM queue ORDER BY seq"):
            key = queue_key(codec.decode(stanza))
            self.registry.devices_by_row[row].queue[key] = UndeliveredStanza(seq, stanza)

    def next_id(self) -> str:
        """An id for a request or notification of the server's own."""
        return str(next(self._ids))

    # --- who is connected ---------------------------------------------------------------------

    def client_of(self, device: LinkedDevice) -> ConnectedClient | None:
        """The client that is logged in as the device, or None."""
        return self._client_of.get(device)

    def online(self, phone: str | None) -> list[ConnectedClient]:
        """The clients that are logged in as devices of a phone (digits); of all phones if None."""
        return [
            client
            for client in self.clients
            if client.device is not None and (phone is None or client.device.account.phone == phone)
        ]

    def connect(self, client: ConnectedClient) -> None:
        """A client has opened a connection."""
        self.clients.add(client)

    def disconnect(self, client: ConnectedClient) -> None:
        """A client's connection has ended; what was on its way waits for the next one."""
        self.clients.discard(client)
        self._unbind(client)

    def log_in(self, client: ConnectedClient, device: LinkedDevice) -> None:
        """Let `client` be `device` from now on. An older client of it must have been ended."""
        client.device = device
        self._client_of[device] = client
        device.refused.clear()

    def unlink(self, device: LinkedDevice) -> ConnectedClient | None:
        """Remove a linked device with all that waited for it. Returns its client, if connected."""
        self.registry.unlink(device)
        return self._client_of.pop(device, None)

    def end_stream(
        self, client: ConnectedClient, last: Node, *, grace: float = LAST_WORDS_GRACE
    ) -> None:
        """Send a last stanza (`stream:error`, `failure`), and close after `grace` seconds."""
        self.send(client, last)
        self.retire(client, grace=grace)

    def retire(self, client: ConnectedClient, *, grace: float = CLOSING_DEADLINE) -> None:
        """Take nothing more from a client, and close after `grace` seconds if it does not."""
        if client.ending:
            return
        self._unbind(client)
        client.device = None
        client.ending = True
        client.active = False
        client.wire.close_after(grace)

    def _unbind(self, client: ConnectedClient) -> None:
        device = client.device
        if device is not None and self._client_of.get(device) is client:
            del self._client_of[device]
        self.offers.withdraw(client)

    # --- to clients ---------------------------------------------------------------------------

    def send(self, client: ConnectedClient, node: Node) -> None:
        """Send a stanza to a client, with the next flush. It is lost if the connection ends."""
        client.wire.enqueue(self.codec.encode(node))
        self._unflushed[client] = None

    def deliver(self, device: LinkedDevice, node: Node) -> None:
        """Give a stanza to a device, now or when it comes back, until it acknowledges it."""
        stanza = self.codec.encode(node)
        key = queue_key(node)
        # A newer one with the same key (a resend) replaces the older, at the end of the queue.
        self.settle(device, key)
        seq = self.database.enqueue(device.row, stanza)
        device.queue[key] = UndeliveredStanza(seq, stanza)
        client = self._client_of.get(device)
        if client is None or not client.active:
            self.statistics.queued_offline += 1
        elif client.backlog or len(client.in_flight) >= MAX_IN_FLIGHT:
            client.backlog.append(key)
        else:
            client.in_flight.add(key)
            client.wire.enqueue(stanza)
            self._unflushed[client] = None

    def notify(self, device: LinkedDevice, attrs: Attrs, content: list[Node]) -> None:
        """Deliver a `<notification>` to a device; it gets an id and the time besides `attrs`."""
        attrs = {**attrs, "id": self.next_id(), "t": timestamp()}
        self.deliver(device, Node("notification", attrs, content))

    def settle(self, device: LinkedDevice, key: QueueKey) -> bool:
        """The device acknowledged a stanza. False if none was waiting under that key."""
        waiting = device.queue.pop(key, None)
        if waiting is None:
            return False
        self.database.dequeue(waiting.seq)
        client = self._client_of.get(device)
        if client is not None:
            client.in_flight.discard(key)
            if client.backlog:
                self._send_backlog(client, device)
        return True

    def activate(self, client: ConnectedClient) -> None:
        """Give a client all that waited for its device; from here on it gets stanzas as they come.

        Does nothing for a client that is active already, or not logged in.
        """
        device = client.device
        if device is None or client.active:
            return
        client.active = True
        client.waited = len(device.queue)
        kinds = Counter(key[0] for key in device.queue)
        counts: Attrs = {kind: str(kinds[kind]) for kind in ("message", "receipt", "notification")}
        preview = Node("offline_preview", {"count": str(client.waited), "appdata": "0", **counts})
        self.send(client, Node("ib", {"from": SERVER}, [preview]))
        client.backlog.extend(device.queue)
        client.backlog.append(END_OF_OFFLINE)
        self.statistics.redelivered += client.waited
        self._send_backlog(client, device)

    def _send_backlog(self, client: ConnectedClient, device: LinkedDevice) -> None:
        """Send as much of the backlog as may be in flight."""
        while client.backlog and len(client.in_flight) < MAX_IN_FLIGHT:
            key = client.backlog.popleft()
            if key == END_OF_OFFLINE:
                done = Node("offline", {"count": str(client.waited)})
                client.waited = 0
                self.send(client, Node("ib", {"from": SERVER}, [done]))
            elif (waiting := device.queue.get(key)) is not None:
                client.in_flight.add(key)
                stanza = waiting.stanza
                if client.waited:
                    node = self.codec.decode(stanza)
                    left = str(len(client.backlog))
                    stanza = self.codec.encode(node._replace(attrs={**node.attrs, "offline": left}))
                client.wire.enqueue(stanza)
                self._unflushed[client] = None

    def flush(self) -> None:
        """Commit, then send what has gathered for each client."""
        self.database.commit()
        unflushed, self._unflushed = self._unflushed, {}
        for client in unflushed:
            client.wire.flush()
        self.note_change()

    # --- for those who wait -------------------------------------------------------------------

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
