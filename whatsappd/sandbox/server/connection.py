"""One client's connection, from the accepted socket to its end.

It runs through `opening` (proxy, TLS, HTTP), the handshake (`protocol.server_stream`), the login,
and then stanzas: all that one read brought are handled in turn, and then everything that they
caused, for this client and for others, is sent in one piece each (`Switchboard.flush`).

Which function handles which stanza is passed in (`StanzaHandlers`), so this module knows none of
them. A client that breaks the protocol, and a defect in a handler, end this one connection.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.protocol.noise import FinishedHandshake, NoiseIdentity
from whatsappd.sandbox.protocol.server_stream import ServerStream
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.server import opening
from whatsappd.sandbox.server.delayed_writer import DelayedWriter
from whatsappd.sandbox.server.tcp_channel import TcpChannel
from whatsappd.sandbox.state.clients import CLOSING_DEADLINE, ConnectedClient
from whatsappd.sandbox.state.switchboard import Switchboard

log = logging.getLogger("whatsappd.sandbox")

#: Seconds for proxy, TLS, HTTP and Noise together.
OPENING_DEADLINE = 20

#: Handles one stanza of a client: changes the state, and answers through the switchboard. It does
#: not wait, and calls no `flush`.
StanzaHandler = Callable[[Switchboard, ConnectedClient, Node], None]
#: Handles what a client says after the handshake: who it is, or that it wants to be linked.
LoginHandler = Callable[[Switchboard, ConnectedClient, FinishedHandshake], None]


@dataclass(frozen=True)
class StanzaHandlers:
    """What a connection calls. `stanza_handlers.HANDLERS` is the sandbox's."""

    log_in: LoginHandler
    by_tag: Mapping[str, StanzaHandler]
    before_login: frozenset[str]  # the tags that a client may send that is not logged in


class ClientConnection:
    """A connection: reads, decrypts and dispatches; it is the `ClientWire` of its client."""

    def __init__(
        self,
        channel: TcpChannel,
        board: Switchboard,
        identity: NoiseIdentity,
        handlers: StanzaHandlers,
    ) -> None:
        self._channel = channel
        self._board = board
        self._handlers = handlers
        self._client = ConnectedClient(self)
        self._stream = ServerStream(identity)
        self._writer = DelayedWriter(channel, board)
        self._thawed: trio.Event | None = None
        self._nursery: trio.Nursery | None = None

    # --- life ---------------------------------------------------------------------------------

    async def run(self, context: ssl.SSLContext, *, refuse: bool) -> None:
        """Serve the client until it goes, or breaks the protocol, or is told to go.

        Args:
            context: TLS for clients that begin with it.
            refuse: answer its HTTP request with 503 (the fault `refuse_dials`).
        """
        self._board.connect(self._client)
        try:
            with self._channel:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._channel.run_writer)
                    nursery.start_soon(self._writer.run)
                    try:
                        await self._serve(context, refuse=refuse)
                    finally:
                        self._nursery = None  # it takes no more tasks from here on
                    nursery.cancel_scope.cancel()
        finally:
            self._board.disconnect(self._client)
            # What its last frames caused, if one of them ended the connection.
            self._board.flush()

    async def _serve(self, context: ssl.SSLContext, *, refuse: bool) -> None:
        statistics = self._board.statistics
        try:
            with trio.move_on_after(OPENING_DEADLINE) as deadline:
                data = await opening.open_websocket(self._channel, context, refuse=refuse)
                if data is None:
                    await self._channel.end_writing()
                    return
                while not self._take(data):
                    data = await self._receive()
            if not deadline.cancelled_caught:
                while not self._stream.is_closed:
                    self._take(await self._receive())
                self._writer.finish()
        except ProtocolViolation as error:
            statistics.note_violation(str(error))
            log.warning("a client broke the protocol: %s", statistics.last_violation)
        except (EOFError, OSError, trio.ClosedResourceError) as error:
            log.debug("a connection ended: %r", error)
        except Exception:
            # A defect of ours: it must not take the other clients along. Tests assert on it.
            statistics.defects += 1
            log.exception("a defect ended a connection")

    # --- receiving ----------------------------------------------------------------------------

    async def _receive(self) -> bytes:
        data = await self._channel.receive()
        while self._thawed is not None:
            await self._thawed.wait()
        if not data or self._channel.closed:
            raise EOFError("the client closed its side")
        return data

    def _take(self, data: bytes) -> bool:
        """Handle what arrived. Returns whether the handshake was finished by it."""
        has_finished = False
        try:
            for received in self._stream.receive(data):
                if self._client.ending:
                    continue  # its stream is over: nothing that it sends counts any more
                if isinstance(received, FinishedHandshake):
                    has_finished = True
                    self._handlers.log_in(self._board, self._client, received)
                else:
                    self._handle(self._board.codec.decode(received))
        finally:
            if replies := self._stream.take_replies():
                self._writer.write(replies)
        self._board.flush()
        return has_finished

    def _handle(self, node: Node) -> None:
        client = self._client
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s -> %s", client.device and client.device.jid, node)
        handler = self._handlers.by_tag.get(node.tag)
        if handler is None:
            self._board.statistics.note_unknown(f"<{node.tag}>")
        elif client.device is None and node.tag not in self._handlers.before_login:
            raise ProtocolViolation(f"<{node.tag}> from a client that is not logged in")
        else:
            handler(self._board, client, node)

    # --- ClientWire ---------------------------------------------------------------------------

    def enqueue(self, stanza: bytes) -> None:
        """Encrypt a stanza for the next `flush`; the order of calls is the order on the wire."""
        if not self._channel.closed:
            self._stream.enqueue(stanza)

    def flush(self) -> None:
        """Send what was enqueued."""
        if stanzas := self._stream.take_stanzas():
            self._writer.write(stanzas)

    def send_later(self, node: Node, seconds: float) -> None:
        """Send a stanza after `seconds`, if the connection is still open then."""

        async def wait_and_send() -> None:
            await trio.sleep(seconds)
            self._board.send(self._client, node)
            self._board.flush()

        if self._nursery is not None:
            self._nursery.start_soon(wait_and_send)

    def close_after(self, grace: float) -> None:
        """Close after `grace` seconds, if the client does not close before."""
        if self._nursery is not None:
            self._nursery.start_soon(self._close_after, grace)

    async def _close_after(self, grace: float) -> None:
        await trio.sleep(grace + self._board.latency_s)
        self._channel.write(self._stream.close())
        # Closing with unread data would reset the connection, and the client could lose the last
        # stanza: so its side is left open until it closes, within reason.
        with trio.move_on_after(CLOSING_DEADLINE):
            await self._channel.end_writing()
            await trio.sleep_forever()
        self._channel.close()

    def drop(self) -> None:
        """Close the TCP connection now, without a word (the fault)."""
        self._channel.close()

    def freeze(self, seconds: float, *, cut: bool) -> None:
        """Neither read nor write for `seconds`, then close if `cut`, else go on (the fault)."""
        if self._nursery is None or self._thawed is not None:
            return
        self._thawed = trio.Event()
        self._channel.freeze()
        self._nursery.start_soon(self._thaw, seconds, cut)

    async def _thaw(self, seconds: float, cut: bool) -> None:
        await trio.sleep(seconds)
        if cut:
            self._channel.close()
        thawed, self._thawed = self._thawed, None
        assert thawed is not None
        self._channel.thaw()
        thawed.set()
