"""One client's connection, from the accepted socket to its end.

Opening (`listener`), Noise handshake, login or pairing (`login`), and then frames: all that one
read brought are handled in turn, and everything they caused, for this client and for others, is
sent in one piece each. A client that breaks the protocol ends its own connection only.
"""

from __future__ import annotations

import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from whatsappd.sandbox.protocol import websocket
from whatsappd.sandbox.protocol.frames import FrameReader, frame
from whatsappd.sandbox.protocol.noise import Handshake, NoiseIdentity, Transport
from whatsappd.sandbox.protocol.stanza import Node
from whatsappd.sandbox.protocol.tcp_channel import Channel
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.protocol.websocket import WebSocket
from whatsappd.sandbox.server import iq, listener, login, messages, presence, receipts
from whatsappd.sandbox.state.accounts import Device, QueueKey

if TYPE_CHECKING:
    from whatsappd.sandbox.phones.pairing import Offer
    from whatsappd.sandbox.state.switchboard import Switchboard

log = logging.getLogger("whatsappd.sandbox")

#: Seconds for proxy, TLS, HTTP and Noise together.
OPENING_DEADLINE = 20
#: Seconds that a client gets to act on the stanza that ends its stream. One that sees the end while
#: that stanza is still in its queue may forget the stanza: whatsmeow then never learns of it.
LAST_WORDS_GRACE = 0.5
#: Seconds that it then gets to close its side, or to close by itself after it was told to.
CLOSING_DEADLINE = 5
#: Frames are gathered into WebSocket messages of about this size; none is ever split.
_MESSAGE_SIZE = 256 * 1024

Handler = Callable[["Switchboard", "Connection", Node], None]

_HANDLERS: dict[str, Handler] = {
    "message": messages.handle,
    "receipt": receipts.handle,
    "ack": receipts.handle_ack,
    "iq": iq.handle,
    "presence": presence.handle,
    "chatstate": presence.handle_chatstate,
    "ib": lambda board, connection, node: None,  # unified_session, offline_batch: nothing to do
}
#: Pairing is requests, and a notification if a passkey is asked for; whatsmeow's telemetry (`ib`)
#: may overtake its end.
_BEFORE_LOGIN = ("iq", "ib", "ack")


class Connection:
    """A client's connection. `device` is set by a login, `offer` while it waits to be paired."""

    def __init__(self, channel: Channel, board: Switchboard, identity: NoiseIdentity) -> None:
        self.channel = channel
        self.board = board
        self.device: Device | None = None
        self.offer: Offer | None = None
        self.active = False
        self.ending = False  # the stream is over: nothing the client sends counts any more
        # Of what waits in the device's queue: what this client has, what it is yet to get, and
        # how much had waited for it when it came.
        self.in_flight: set[QueueKey] = set()
        self.backlog: deque[QueueKey] = deque()
        self.waited = 0
        self._identity = identity
        self._websocket = WebSocket()
        self._frames = FrameReader()
        self._transport: Transport | None = None
        self._outgoing: list[bytes] = []
        # What was sent and is on its way, with the time when it arrives (trio's clock).
        self._on_the_way: deque[tuple[float, bytes]] = deque()
        self._more_on_the_way = trio.Event()
        self._thawed: trio.Event | None = None
        self._nursery: trio.Nursery | None = None

    # --- life ---------------------------------------------------------------------------------

    async def run(self, context: ssl.SSLContext, *, refuse: bool) -> None:
        """Serve the client until it goes, or breaks the protocol, or is told to go."""
        self.board.connections.add(self)
        try:
            with self.channel:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self.channel.run_writer)
                    nursery.start_soon(self._run_delay)
                    try:
                        await self._serve(context, refuse=refuse)
                    finally:
                        self._nursery = None  # it takes no more tasks from here on
                    nursery.cancel_scope.cancel()
        finally:
            self.board.connections.discard(self)
            self._forget()
            # What its last frames caused, if one of them ended the connection.
            self.board.flush()

    async def _serve(self, context: ssl.SSLContext, *, refuse: bool) -> None:
        try:
            with trio.move_on_after(OPENING_DEADLINE) as opening:
                rest = await listener.upgrade(self.channel, context, refuse=refuse)
                if rest is None:
                    await self.channel.end_writing()
                    return
                await self._shake_hands(rest)
            if not opening.cancelled_caught:
                await self._converse()
        except ProtocolViolation as error:
            self.board.statistics.note_violation(str(error))
            log.warning("a client broke the protocol: %s", self.board.statistics.last_violation)
        except (EOFError, OSError, trio.ClosedResourceError) as error:
            log.debug("a connection ended: %r", error)
        except Exception:
            # A defect of ours: it must not take the other clients along. Tests assert on it.
            self.board.statistics.defects += 1
            log.exception("a defect ended a connection")

    def _forget(self) -> None:
        if self.device is not None and self.device.connection is self:
            self.device.connection = None
        if self.offer is not None:
            self.offer.withdraw("the client that showed this QR code is gone")

    # --- receiving ----------------------------------------------------------------------------

    async def _shake_hands(self, rest: bytes) -> None:
        frames = self._frames.feed(self._websocket.feed(rest))
        handshake: Handshake | None = None
        while True:
            for number, payload in enumerate(frames):
                if handshake is None:
                    assert self._frames.header is not None
                    handshake = Handshake(self._identity, self._frames.header)
                    self._write(frame(handshake.answer(payload)))
                    continue
                finished = handshake.finish(payload)
                self._transport = finished.transport
                login.begin(self.board, self, finished.client_static, finished.payload)
                self._handle_frames(frames[number + 1 :])
                self.board.flush()
                return
            frames = await self._receive()

    async def _receive(self) -> list[bytes]:
        data = await self.channel.receive()
        while self._thawed is not None:
            await self._thawed.wait()
        if not data or self.channel.closed:
            raise EOFError("the client closed its side")
        payload = self._websocket.feed(data)
        if self._websocket.to_send:
            for answer in self._websocket.to_send:
                self.channel.write(answer)
            self._websocket.to_send.clear()
        return self._frames.feed(payload)

    async def _converse(self) -> None:
        while not self._websocket.closed:
            self._handle_frames(await self._receive())
            self.board.flush()

    def _handle_frames(self, frames: list[bytes]) -> None:
        transport = self._transport
        assert transport is not None
        for payload in frames:
            if self.ending:
                return
            node = self.board.codec.decode(transport.decrypt(payload))
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s -> %s", self.device and self.device.jid, node)
            handler = _HANDLERS.get(node.tag)
            if handler is None:
                self.board.statistics.note_unknown(f"<{node.tag}>")
            elif self.device is None and node.tag not in _BEFORE_LOGIN:
                raise ProtocolViolation(f"<{node.tag}> from a client that is not logged in")
            else:
                handler(self.board, self, node)

    # --- sending ------------------------------------------------------------------------------

    def enqueue(self, stanza: bytes) -> None:
        """Encrypt a stanza for the next `flush`; the order of calls is the order of frames."""
        if self._transport is not None and not self.channel.closed:
            self._outgoing.append(frame(self._transport.encrypt(stanza)))

    def flush(self) -> None:
        """Send what was enqueued, in as few WebSocket messages as the sizes allow."""
        outgoing, self._outgoing = self._outgoing, []
        size = 0
        start = 0
        pieces = []
        for number, piece in enumerate(outgoing):
            size += len(piece)
            if size >= _MESSAGE_SIZE:
                pieces.append(websocket.binary_message(b"".join(outgoing[start : number + 1])))
                start, size = number + 1, 0
        if size:
            pieces.append(websocket.binary_message(b"".join(outgoing[start:])))
        if pieces:
            self._send(b"".join(pieces))

    def _write(self, data: bytes) -> None:
        self._send(websocket.binary_message(data))

    def _send(self, data: bytes) -> None:
        """Let `data` arrive after the sandbox's latency, in order."""
        latency_s = self.board.latency_s
        if latency_s <= 0 and not self._on_the_way:
            self.channel.write(data)
            return
        self._on_the_way.append((trio.current_time() + latency_s, data))
        self._more_on_the_way.set()

    async def _run_delay(self) -> None:
        while True:
            await self._more_on_the_way.wait()
            self._more_on_the_way = trio.Event()
            while self._on_the_way:
                await trio.sleep_until(self._on_the_way[0][0])
                self.channel.write(self._on_the_way.popleft()[1])

    def send_later(self, node: Node, seconds: float) -> None:
        """Send a stanza after a while, if the connection still stands then."""

        async def wait_and_send() -> None:
            await trio.sleep(seconds)
            self.board.send(self, node)
            self.board.flush()

        if self._nursery is not None:
            self._nursery.start_soon(wait_and_send)

    # --- ending -------------------------------------------------------------------------------

    def end_stream(self, last: Node, *, grace: float = LAST_WORDS_GRACE) -> None:
        """Send a last stanza (`stream:error`, `failure`), and close after `grace` seconds."""
        self.board.send(self, last)
        self.retire(grace=grace)

    def retire(self, *, grace: float = CLOSING_DEADLINE) -> None:
        """Listen no more, and close after `grace` seconds if the client does not."""
        if self.ending:
            return
        self._forget()
        self.device = None
        self.offer = None
        self.ending = True
        self.active = False
        if self._nursery is not None:
            self._nursery.start_soon(self._close_soon, grace)

    async def _close_soon(self, grace: float) -> None:
        await trio.sleep(grace + self.board.latency_s)
        self.channel.write(websocket.close_frame())
        # Closing with unread data would reset the connection, and the client could lose the last
        # stanza: so its side is left open until it closes, within reason.
        with trio.move_on_after(CLOSING_DEADLINE):
            await self.channel.end_writing()
            await trio.sleep_forever()
        self.channel.close()

    def drop(self) -> None:
        """Close the TCP connection now, without a word (the fault)."""
        self.channel.close()

    def freeze(self, seconds: float, *, cut: bool) -> None:
        """Neither read nor write for a while, then close or go on (the fault)."""
        if self._nursery is None or self._thawed is not None:
            return
        self._thawed = trio.Event()
        self.channel.freeze()
        self._nursery.start_soon(self._thaw, seconds, cut)

    async def _thaw(self, seconds: float, cut: bool) -> None:
        await trio.sleep(seconds)
        if cut:
            self.channel.close()
        thawed, self._thawed = self._thawed, None
        assert thawed is not None
        self.channel.thaw()
        thawed.set()
