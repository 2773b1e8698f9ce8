"""Frames: what the bytes within the WebSocket are cut into, before and after they are encrypted.

    "WA" 6 dictionary-version          the client's stream header, once; also Noise's prologue
    length (3 bytes, big-endian) payload     frames, in both directions

A client that was given routing information sends it first: "ED" 0 1, and a frame with it. The
server sends no header. Where WebSocket messages begin and end means nothing, but whatsmeow
(socket/framesocket.go) puts a frame of the server together wrongly if it is cut in two.
"""

from __future__ import annotations

from whatsappd.sandbox.protocol.violations import ProtocolViolation

_LENGTH_SIZE = 3
#: The largest payload of a frame that the sandbox takes, in bytes. WhatsApp's own limit is what
#: three bytes can say, 16 MiB; the largest frame that clients have cause to send, the first message
#: to a group of 1024 members with four devices each, has 1.6 MiB. A decoded stanza takes up to 26
#: times the memory of its bytes, and no other client is served while it is decoded (measured, with
#: elements of three bytes: 54 MB and 0.7 s for this limit).
MAX_FRAME = 1 << 21
_HEADER_SIZE = 4
_HEADER_START = b"WA"
_ROUTING_START = b"ED"
_ROUTING_HEADER_SIZE = 4


def frame(payload: bytes) -> bytes:
    """One frame: the length, then the payload."""
    return len(payload).to_bytes(_LENGTH_SIZE, "big") + payload


class NoiseFrameReader:
    """Cuts a client's bytes into its stream header and the payloads of its frames.

    `header` is None until the whole header has arrived, then its 4 bytes.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.header: bytes | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the frames that `data` completes; `data` may be cut anywhere.

        Raises:
            ProtocolViolation: the stream does not begin with its header, or a frame is too large.
        """
        buffer = self._buffer
        buffer += data
        if self.header is None and not self._take_header():
            return []
        frames = []
        position = 0
        while len(buffer) - position >= _LENGTH_SIZE:
            start = position + _LENGTH_SIZE
            size = int.from_bytes(buffer[position:start], "big")
            if size > MAX_FRAME:
                raise ProtocolViolation(f"a frame of {size} bytes exceeds {MAX_FRAME}")
            end = start + size
            if end > len(buffer):
                break
            frames.append(bytes(buffer[start:end]))
            position = end
        del buffer[:position]
        return frames

    def _take_header(self) -> bool:
        buffer = self._buffer
        if buffer.startswith(_ROUTING_START):
            start = _ROUTING_HEADER_SIZE + _LENGTH_SIZE
            end = start + int.from_bytes(buffer[_ROUTING_HEADER_SIZE:start], "big")
            if len(buffer) < max(start, end):
                return False
            del buffer[:end]
        if len(buffer) < _HEADER_SIZE:
            return False
        if not buffer.startswith(_HEADER_START):
            raise ProtocolViolation("the stream does not begin with WhatsApp's header")
        self.header = bytes(buffer[:_HEADER_SIZE])
        del buffer[:_HEADER_SIZE]
        return True
