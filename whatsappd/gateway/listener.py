"""The gateway's listening socket (TCP or Unix), and the limits on those who connect to it.

`gateway.run` opens one, and accepts streams from it. Limited are the number of connections, that of
one address, the bytes that the kernel holds for each, and the time for which a client may not read:
it would otherwise block its task, and the end of the process, for ever.

On failure: too many connections are closed at once, and counted. A client that does not read is cut
off. If the socket itself is gone, `accept` raises, and the gateway ends.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import trio

from whatsappd.errors import AlreadyRunning, BadStateDirectory, InvalidParams
from whatsappd.gateway.limited_log import LimitedLog
from whatsappd.gateway.settings import Bind
from whatsappd.rpc.listener import open_listener
from whatsappd.rules.bounds import HTTP_CONNECTIONS, report
from whatsappd.rules.client_address import address_of, network_of

log = LimitedLog()

#: Connections at a time, and from one other host (or network: see `network_of`).
MAX_CONNECTIONS = HTTP_CONNECTIONS.all
MAX_PER_ADDRESS = HTTP_CONNECTIONS.each
#: Seconds without any progress, after which a client that does not read is cut off.
SEND_STALLED_AFTER = 30.0
#: Milliseconds until the kernel gives up a peer that acknowledges nothing (tcp(7)).
USER_TIMEOUT_MS = 60_000
#: Bytes that the kernel holds for a client that reads slowly. Its default grows to 4 MB, and a
#: thousand streams would hold 4 GB.
SEND_BUFFER = 256 * 1024
_SLICE = 64 * 1024
#: What accept() fails with when the descriptor is no listening socket (any more).
_SOCKET_GONE = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})
BACKLOG = 1024


class GuardedStream(trio.abc.HalfCloseableStream):
    """A client's stream. Sending gives up when the client takes nothing for a while.

    `address`: the other host's, as connections are counted; None for this host.
    """

    def __init__(self, stream: trio.SocketStream, address: str | None) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.address = address

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Hand bytes to the kernel without waiting. Returns how many it took, which is mostly all.

        This is no checkpoint: a thousand streams get twice as much done that way. Whoever sends
        for long comes to a checkpoint anyway, where it waits for what to send.

        Raises:
            trio.BrokenResourceError: the client is gone.
        """
        try:
            return os.write(self.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError("the client is gone") from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it.

        Raises:
            trio.BrokenResourceError: the client is gone, or took nothing for SEND_STALLED_AFTER
                seconds; the stream is closed then.
        """
        view = memoryview(data)
        view = view[self.send_now(view) :]
        for start in range(0, len(view), _SLICE):
            with trio.move_on_after(SEND_STALLED_AFTER) as stalled:
                await self._stream.send_all(view[start : start + _SLICE])
            if stalled.cancelled_caught:
                log.info("client_cut", address=self.address, reason="it does not read")
                await trio.aclose_forcefully(self._stream)
                raise trio.BrokenResourceError("the client does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class GuardedListener(trio.abc.Listener[GuardedStream]):
    """Accepts clients while there is room, and closes the connections of others at once.

    It owns the listening socket. Closing it removes a Unix socket's file, unless another gateway
    has put its own in that place.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._file = _SocketFile.of(listening)
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        self._is_tcp = listening.family != socket.AF_UNIX
        self._open: dict[GuardedStream, None] = {}
        self._by_address: Counter[str] = Counter()
        self._empty = trio.Event()
        self.refused = 0

    @property
    def connections(self) -> int:
        return len(self._open)

    async def accept(self) -> GuardedStream:
        """Wait for a client that there is room for. `release` its stream when it is served.

        Raises:
            BadStateDirectory: the listening socket is gone.
            OSError: accepting failed, for want of file descriptors for example; it may be tried
                again.
        """
        while True:
            try:
                stream = await self._listener.accept()
            except OSError as error:
                if error.errno in _SOCKET_GONE:
                    raise BadStateDirectory(
                        f"the listening socket is gone: {error.strerror}; start the gateway again"
                    ) from error
                raise
            address = self._address(stream)
            if self._has_room(address):
                break
            self.refused += 1
            log.warning("connection_refused", address=address, connections=len(self._open))
            await trio.aclose_forcefully(stream)
        with suppress(OSError):  # of one that has gone already, which serving it finds out
            if self._is_tcp:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        guarded = GuardedStream(stream, address)
        self._open[guarded] = None
        if address is not None:
            self._by_address[address] += 1
        return guarded

    def release(self, stream: GuardedStream) -> None:
        """The stream is served and closed: its place is free again."""
        del self._open[stream]
        if stream.address is not None:
            self._by_address[stream.address] -= 1
            if not self._by_address[stream.address]:
                del self._by_address[stream.address]
        if not self._open:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until all streams are released."""
        while self._open:
            self._empty = trio.Event()
            await self._empty.wait()

    async def cut_all(self) -> None:
        """Close all streams that are still open, also those that are in the middle of sending."""
        for stream in list(self._open):
            await trio.aclose_forcefully(stream)

    async def aclose(self) -> None:
        """Stop listening. Streams that are open stay so."""
        # In this order: nobody takes the path of one that listens, and as long as our socket is
        # open no other file has its inode's number.
        if self._file is not None:
            self._file.remove()
            self._file = None
        await self._listener.aclose()

    def report(self) -> list[dict[str, Any]]:
        """How many connections other hosts' addresses hold, for `daemon.limits`."""
        held = [(f"address:{name}", count) for name, count in self._by_address.most_common()]
        return [report(HTTP_CONNECTIONS, len(self._open), held, self.refused)]

    def _has_room(self, address: str | None) -> bool:
        if len(self._open) >= MAX_CONNECTIONS:
            return False
        return address is None or self._by_address[address] < MAX_PER_ADDRESS

    def _address(self, stream: trio.SocketStream) -> str | None:
        """The other host's address; None for this host, whose proxy may bring everybody."""
        if not self._is_tcp:
            return None
        try:
            address = str(stream.socket.getpeername()[0])
        except OSError:
            return None  # it left already; serving it will find out
        found = address_of(address)
        return None if found is None or found.is_loopback else network_of(found)


def open_socket(bind: Bind, socket_group: str | None = None) -> socket.socket:
    """A listening socket. A Unix socket's file has mode 0660 and the group that is asked for.

    Raises:
        AlreadyRunning: somebody else listens there.
        InvalidParams: there is no such address, file or group here, or no permission.
    """
    if bind.path is not None:
        group = None if socket_group is None else _gid(socket_group)
        try:
            return open_listener(bind.path, group=group, option="--bind").socket
        except BadStateDirectory as error:
            raise InvalidParams(f"bind: {error.message}", field="bind") from error
    family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((bind.host, bind.port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunning(
                f"something else listens on {bind} already (another gateway?): stop it, or give "
                "another --bind"
            ) from error
        raise InvalidParams(
            f"bind: cannot listen on {bind}: {error.strerror or error}", field="bind"
        ) from error
    listening.setblocking(False)
    return listening


def _gid(group: str) -> int:
    if group.isascii() and group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise InvalidParams(
            f"socket-group: there is no group {group!r:.80} on this host", field="socket-group"
        ) from error


class _SocketFile(NamedTuple):
    """A Unix socket's file, and what tells it from another file at the same path."""

    path: Path
    device: int
    inode: int

    @classmethod
    def of(cls, listening: socket.socket) -> _SocketFile | None:
        """The file of a listening socket. None: it is a TCP socket, or its file is gone."""
        if listening.family != socket.AF_UNIX:
            return None
        return cls._found(Path(listening.getsockname()))

    @classmethod
    def _found(cls, path: Path) -> _SocketFile | None:
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        return cls(path, found.st_dev, found.st_ino)

    def remove(self) -> None:
        """Delete the file, unless it is gone or another gateway's by now."""
        if self._found(self.path) == self:
            self.path.unlink(missing_ok=True)
