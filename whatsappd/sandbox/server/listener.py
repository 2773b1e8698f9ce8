"""The sandbox's one port: whoever connects ends as a WebSocket, on whichever way it came.

A client that was given the port as its proxy says SOCKS5 or CONNECT first and then speaks TLS; one
that was given a URL speaks TLS or plain HTTP at once. The first byte tells which. Whatever host a
proxy request names, the answer is this server: nothing is ever connected to the outside.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from whatsappd.sandbox.protocol import websocket
from whatsappd.sandbox.protocol.tcp_channel import Channel
from whatsappd.sandbox.protocol.violations import ProtocolViolation

CHAT_PATH = "/ws/chat"

_SOCKS5 = 0x05
_TLS_HELLO = 0x16

# SOCKS5 (RFC 1928)
_NO_AUTHENTICATION = b"\x05\x00"
_CONNECT = 0x01
_IPV4, _DOMAIN, _IPV6 = 0x01, 0x03, 0x04
_CONNECTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


async def upgrade(channel: Channel, context: ssl.SSLContext, *, refuse: bool) -> bytes | None:
    """Lead a fresh connection through proxy, TLS and HTTP to its WebSocket.

    Args:
        channel: the connection.
        context: TLS for those who want it.
        refuse: answer the HTTP request with 503 instead (the fault `refuse_dials`).

    Returns:
        The bytes that already followed the HTTP request; None if the request was refused.

    Raises:
        ProtocolViolation: the client speaks none of these protocols.
        ssl.SSLError, OSError: it went away, for example because it does not trust the CA.
    """
    first = await channel.peek()
    if first == _SOCKS5:
        await _answer_socks(channel)
        first = await channel.peek()
    elif first == ord("C"):
        await _answer_connect(channel)
        first = await channel.peek()
    if first == _TLS_HELLO:
        await channel.start_tls(context)
    elif first != ord("G"):
        raise ProtocolViolation(f"neither SOCKS5, CONNECT, TLS nor HTTP: first byte {first}")
    head, rest = await channel.receive_head()
    request = websocket.parse_request(head)
    if refuse:
        channel.write(websocket.refuse("503 Service Unavailable"))
        return None
    if urlsplit(request.target).path != CHAT_PATH:
        channel.write(websocket.refuse("404 Not Found"))
        return None
    channel.write(websocket.accept_upgrade(request))
    return rest


async def _answer_socks(channel: Channel) -> None:
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
    await channel.receive_exactly(size + 2)
    channel.write(_CONNECTED)


async def _answer_connect(channel: Channel) -> None:
    head, rest = await channel.receive_head()
    if websocket.parse_request(head).method != "CONNECT" or rest:
        raise ProtocolViolation("not a CONNECT request of a proxy's client")
    channel.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
