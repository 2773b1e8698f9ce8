"""One accepted TCP connection, plain or TLS: bytes in, bytes out, and writing never waits.

It uses non-blocking sockets and `trio.lowlevel` instead of trio's streams, because a handler
answers many clients at once and none of them may hold up the others, because the first byte must
be looked at without taking it, and because a read costs half as much.
"""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Self

import trio

from whatsappd.sandbox.protocol.violations import ProtocolViolation

#: Bytes that one read brings at most.
READ_SIZE = 64 * 1024
#: Bytes that may wait for a client that does not read; with more, its connection is closed.
MAX_UNSENT = 64 * 1024 * 1024


class TcpChannel:
    """The bytes of a connection. One task receives; any may `write`; `run_writer` needs a task.

    `close` lets the task that receives go on with `trio.ClosedResourceError`.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._unsent = bytearray()
        self._wake_writer = trio.Event()
        self._drained = trio.Event()
        self._frozen = False
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def peek(self) -> int | None:
        """The next byte, which stays unread; None if the client closed its side.

        It cannot be called after `start_tls`.
        """
        await trio.lowlevel.wait_readable(self._socket)
        first = self._socket.recv(1, socket.MSG_PEEK)
        return first[0] if first else None

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Become the server's side of a TLS connection.

        Raises:
            ssl.SSLError, OSError: the client gave up, for example because it lacks the CA.
        """
        # From here on the TLS object owns the descriptor.
        self._socket = tls = context.wrap_socket(
            self._socket, server_side=True, do_handshake_on_connect=False
        )
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(tls)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(tls)
            else:
                return

    async def receive(self, size: int = READ_SIZE) -> bytes:
        """At least one byte and at most `size`; empty when the client closed its side.

        Raises:
            OSError: the connection broke.
            trio.ClosedResourceError: it was closed here.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self.closed:
                raise trio.ClosedResourceError
            try:
                return self._socket.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(self._socket)
            except ssl.SSLEOFError:
                return b""

    async def receive_exactly(self, size: int) -> bytes:
        """Exactly `size` bytes.

        Raises:
            ProtocolViolation: the client closed its side before.
            OSError, trio.ClosedResourceError: as `receive`.
        """
        data = b""
        while len(data) < size:
            piece = await self.receive(size - len(data))
            if not piece:
                raise ProtocolViolation("the connection ended within the handshake")
            data += piece
        return data

    def write(self, data: bytes) -> None:
        """Send `data`; what the kernel does not take now is left to `run_writer`. Never waits.

        If the connection is closed or broken, nothing happens: the task that receives learns of it.
        """
        if self.closed:
            return
        if self._unsent or self._frozen:
            self._unsent += data
            if len(self._unsent) > MAX_UNSENT:
                self.close()
            return
        sent = self._try_send(data)
        if sent < len(data):
            self._unsent += data[sent:]
            self._wake_writer.set()

    async def run_writer(self) -> None:
        """Send what `write` left, until cancelled or closed."""
        while not self.closed:
            await self._wake_writer.wait()
            self._wake_writer = trio.Event()
            while self._unsent and not self._frozen and not self.closed:
                try:
                    await trio.lowlevel.wait_writable(self._socket)
                except trio.ClosedResourceError:
                    return
                # A copy, because a TLS library may want the same bytes again.
                sent = self._try_send(bytes(self._unsent[:READ_SIZE]))
                del self._unsent[:sent]
            if not self._unsent:
                self._drained.set()

    def freeze(self) -> None:
        """Keep back everything that is written from here on. Reading goes on."""
        self._frozen = True

    def thaw(self) -> None:
        """Send what was kept back, and everything that is written from here on."""
        self._frozen = False
        self._wake_writer.set()

    async def end_writing(self) -> None:
        """Send what is left, then close this side (TCP FIN). Reading goes on."""
        await trio.lowlevel.checkpoint()
        if self._unsent:
            self._drained = trio.Event()
            await self._drained.wait()
        if not self.closed:
            try:
                # The plain socket's method: that of a TLS socket would forget its keys.
                socket.socket.shutdown(self._socket, socket.SHUT_WR)
            except OSError:
                self.close()

    def close(self) -> None:
        """Close the connection now, both sides. Calling it again does nothing."""
        if self.closed:
            return
        self.closed = True
        self._unsent.clear()
        self._wake_writer.set()
        self._drained.set()
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def _try_send(self, data: bytes) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except OSError:
            # The reader meets the same end and says so.
            self.close()
            return len(data)
