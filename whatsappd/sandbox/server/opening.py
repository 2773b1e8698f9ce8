"""How a connection becomes a WebSocket: proxy, TLS and HTTP, whichever the client begins with.

All clients come to one port. One that has it as its proxy begins with SOCKS5 (RFC 1928) or CONNECT
and then TLS; one that has it as a URL begins with TLS, or with plain HTTP. The first byte tells
which. Whatever host a proxy request names, this server answers: nothing is ever connected to the
outside.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from whatsappd.sandbox.protocol.http_opening import HttpOpening
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.server.tcp_channel import TcpChannel

#: The path of the WebSocket (whatsmeow: socket/constants.go).
CHAT_PATH = "/ws/chat"

_SOCKS5 = 0x05
_TLS_HELLO = 0x16

# SOCKS5 (RFC 1928)
_NO_AUTHENTICATION = b"\x05\x00"
_CONNECT = 0x01
_IPV4, _DOMAIN, _IPV6 = 0x01, 0x03, 0x04
_CONNECTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


async def open_websocket(
    channel: TcpChannel, context: ssl.SSLContext, *, refuse: bool
) -> bytes | None:
    """Lead a fresh connection through proxy, TLS and HTTP to its WebSocket.

    Args:
        channel: the connection.
        context: TLS, for clients that begin with it.
        refuse: answer the HTTP request with 503 instead (the fault `refuse_dials`).

    Returns:
        The bytes that already followed the HTTP request; None if the request was refused.

    Raises:
        ProtocolViolation: the client speaks none of these protocols.
        EOFError: it closed its side before its request was whole.
        ssl.SSLError, OSError: it went away, for example because it does not trust the CA.
    """
    first = await channel.peek()
    if first == _SOCKS5:
        await _answer_socks(channel)
        first = await channel.peek()
    elif first == ord("C"):
        channel.write((await _receive_request(channel)).accept_connect())
        first = await channel.peek()
    if first == _TLS_HELLO:
        await channel.start_tls(context)
    elif first != ord("G"):
        raise ProtocolViolation(f"neither SOCKS5, CONNECT, TLS nor HTTP: first byte {first}")
    request = await _receive_request(channel)
    if refuse:
        channel.write(request.refuse(503, "Service Unavailable"))
        return None
    if urlsplit(request.target).path != CHAT_PATH:
        channel.write(request.refuse(404, "Not Found"))
        return None
    channel.write(request.accept_websocket())
    return request.rest


async def _receive_request(channel: TcpChannel) -> HttpOpening:
    request = HttpOpening()
    while not request.receive(data := await channel.receive()):
        if not data:
            raise EOFError("no HTTP request came")
    return request


async def _answer_socks(channel: TcpChannel) -> None:
    """SOCKS5: the greeting without authentication, then CONNECT to whatever host."""
    _, methods = await channel.receive_exactly(2)
    await channel.receive_exactly(methods)
    channel.write(_NO_AUTHENTICATION)
    _, command, _, kind = await channel.receive_exactly(4)
    if command != _CONNECT:
        raise ProtocolViolation(f"SOCKS5 command {command} is not supported, only CONNECT")
    if kind == _DOMAIN:
        size = (await channel.receive_exactly(1))[0]
    elif kind in (_IPV4, _IPV6):
        size = 4 if kind == _IPV4 else 16
    else:
        raise ProtocolViolation(f"SOCKS5 address type {kind} is unknown")
    await channel.receive_exactly(size + 2)  # the host, and the port
    channel.write(_CONNECTED)
