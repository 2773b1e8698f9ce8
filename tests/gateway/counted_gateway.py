"""A gateway in this process, whose places can be counted: its listener, requests and streams."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio

from whatsappd.gateway.app import Application
from whatsappd.gateway.auth import ApiKeys
from whatsappd.gateway.connection import HttpService
from whatsappd.gateway.daemon_link import DaemonLink
from whatsappd.gateway.listener import GuardedListener, open_socket
from whatsappd.gateway.run import serve_http
from whatsappd.gateway.settings import parse_bind
from whatsappd.gateway.tls import Certificates

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Served(NamedTuple):
    app: Application
    listener: GuardedListener
    port: int
    cafile: Path | None

    @property
    def places(self) -> dict[str, int]:
        """What is taken now."""
        return {
            "connections": self.listener.connections,
            "requests": self.app.requests.total,
            "streams": self.app.streams.open,
        }

    async def until_free(self, within: float = 8) -> None:
        """Wait until no place is taken any more."""
        with trio.move_on_after(within):
            while any(self.places.values()):
                await trio.sleep(0.02)
        assert not any(self.places.values()), self.places

    async def until_taken(self, kind: str, count: int = 1) -> None:
        with trio.fail_after(10):
            while self.places[kind] < count:
                await trio.sleep(0.01)

    async def tcp(self, receive_buffer: int | None = None) -> trio.SocketStream:
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.port))
        return trio.SocketStream(sock)

    async def connect(self, receive_buffer: int | None = None) -> Stream:
        """A client; over TLS if the gateway has it."""
        stream = await self.tcp(receive_buffer)
        if self.cafile is None:
            return stream
        context = ssl.create_default_context(cafile=self.cafile)
        secure = trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)
        await secure.do_handshake()
        return secure


@asynccontextmanager
async def served_gateway(
    daemon: Path, *, certificate: tuple[Path, Path] | None = None, **service: Any
) -> AsyncIterator[Served]:
    """One that asks the daemon at that socket; `service` as HttpService has it."""
    link = DaemonLink(daemon)
    app = Application(link, ApiKeys(link))
    opened = open_socket(parse_bind("127.0.0.1:0"))
    port = opened.getsockname()[1]
    certificates = None if certificate is None else Certificates(*certificate)
    stopping: trio.Event = app.stopping
    async with GuardedListener(opened) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await nursery.start(
            serve_http,
            HttpService(app, stopping, **service),
            listener,
            certificates,
            app.supervision,
        )
        with trio.fail_after(20):
            while not link.is_up:
                await trio.sleep(0.01)
        yield Served(app, listener, port, certificate[0] if certificate else None)
        nursery.cancel_scope.cancel()


def reset(stream: Stream) -> None:
    """Hang up as a client that was killed: what the kernel sends is a reset."""
    tcp = stream if isinstance(stream, trio.SocketStream) else stream.transport_stream
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, for no time: see socket(7)
    tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    tcp.socket.close()


def vanish(stream: Stream) -> None:
    """Hang up without a word of TLS."""
    tcp = stream if isinstance(stream, trio.SocketStream) else stream.transport_stream
    tcp.socket.close()
