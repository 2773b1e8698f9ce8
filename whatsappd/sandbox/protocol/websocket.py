"""The server's side of WebSocket (RFC 6455), as far as WhatsApp's clients use it. Sans I/O.

The opening handshake without extensions (permessage-deflate is declined by not answering it), and
the framing: masked binary messages in, unmasked binary messages out, pings and closes.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

from whatsappd.sandbox.protocol import frames
from whatsappd.sandbox.protocol.violations import ProtocolViolation

#: The most bytes of one WebSocket frame: it is held, and unmasked, before anybody looks at what is
#: in it. WhatsApp's largest frame fits, as the sandbox takes it, with the stream's header and small
#: ones beside it. (whatsmeow sends each of its frames in a message of its own.)
MAX_FRAME = frames.MAX_FRAME + 64 * 1024

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL = 0x80
_MASKED = 0x80
_RESERVED = 0x70
_MASK_SIZE = 4


class HttpRequest(NamedTuple):
    """The head of an HTTP request; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]


def parse_request(head: bytes) -> HttpRequest:
    """The request whose head (without the empty line at its end) this is.

    Raises:
        ProtocolViolation: it is no HTTP/1.1 request.
    """
    try:
        lines = head.decode("ascii").split("\r\n")
        method, target, version = lines[0].split(" ")
    except ValueError as error:
        raise ProtocolViolation("not an HTTP request") from error
    if not version.startswith("HTTP/1."):
        raise ProtocolViolation(f"{version!r} is not HTTP/1.1")
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise ProtocolViolation("an HTTP header without a colon")
        headers[name.strip().lower()] = value.strip()
    return HttpRequest(method, target, headers)


def accept_upgrade(request: HttpRequest) -> bytes:
    """The `101 Switching Protocols` answer to a WebSocket opening handshake.

    Raises:
        ProtocolViolation: the request asks for something else.
    """
    key = request.headers.get("sec-websocket-key")
    if request.headers.get("upgrade", "").lower() != "websocket" or not key:
        raise ProtocolViolation("the HTTP request does not ask for a WebSocket")
    # SHA-1 is what the RFC prescribes; nothing secret depends on it.
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def refuse(status: str) -> bytes:
    """An HTTP answer with an empty body, for example `refuse("503 Service Unavailable")`."""
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode("ascii")


def binary_message(payload: bytes) -> bytes:
    """A binary message in one frame."""
    return _frame(_BINARY, payload)


def close_frame(code: int = 1000) -> bytes:
    return _frame(_CLOSE, code.to_bytes(2, "big"))


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((_FINAL | opcode, size))
    elif size < 1 << 16:
        head = bytes((_FINAL | opcode, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FINAL | opcode, 127)) + size.to_bytes(8, "big")
    return head + payload


class WebSocket:
    """The frames of one connection, after the opening handshake.

    `feed` takes bytes as they arrive; what WhatsApp's protocol sees is a stream of bytes, so the
    boundaries of messages are dropped. `to_send` collects pongs and the answer to a close.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.closed = False
        self.to_send: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """The payload that `data` completes, of all whole frames in it.

        Raises:
            ProtocolViolation: the bytes are no client's WebSocket frames.
        """
        buffer = self._buffer
        buffer += data
        pieces = []
        position = 0
        while not self.closed:
            bounds = _bounds(buffer, position)
            if bounds is None:
                break
            opcode, mask_at, end = bounds
            payload = _unmask(
                bytes(buffer[mask_at : mask_at + _MASK_SIZE]),
                bytes(buffer[mask_at + _MASK_SIZE : end]),
            )
            position = end
            if opcode in (_BINARY, _CONTINUATION):
                pieces.append(payload)
            elif opcode == _PING:
                self.to_send.append(_frame(_PONG, payload))
            elif opcode == _CLOSE:
                self.closed = True
                self.to_send.append(_frame(_CLOSE, payload[:2]))
            elif opcode != _PONG:
                raise ProtocolViolation(f"WebSocket frames of type {opcode} are not used here")
        del buffer[:position]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _bounds(buffer: bytearray, position: int) -> tuple[int, int, int] | None:
    """Opcode, where the mask begins, and where the frame ends; None if it is not whole yet."""
    available = len(buffer) - position
    if available < 2:
        return None
    first, second = buffer[position], buffer[position + 1]
    if first & _RESERVED:
        raise ProtocolViolation("a WebSocket frame uses an extension that was not agreed on")
    if not second & _MASKED:
        raise ProtocolViolation("a client's WebSocket frame is not masked")
    size = second & 0x7F
    mask_at = position + 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if available < 2 + width:
            return None
        size = int.from_bytes(buffer[mask_at : mask_at + width], "big")
        mask_at += width
    if size > MAX_FRAME:
        raise ProtocolViolation(f"a WebSocket frame of {size} bytes exceeds {MAX_FRAME}")
    end = mask_at + _MASK_SIZE + size
    return (first & 0x0F, mask_at, end) if len(buffer) >= end else None


def _unmask(mask: bytes, payload: bytes) -> bytes:
    # One large XOR instead of one a byte: the same, a hundred times faster.
    size = len(payload)
    key = (mask * (size // _MASK_SIZE + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(
        size, "little"
    )
