"""The server's side of a WebSocket's frames (RFC 6455), as WhatsApp's clients use it. Sans-IO.

wsproto parses and builds the frames. WhatsApp uses binary messages only, and within them a stream
of bytes: where a message begins and ends means nothing (`noise_frames` has lengths of its own). So
`receive` returns bytes as they come, also of frames that have arrived in part.
"""

from __future__ import annotations

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from whatsappd.sandbox.protocol import noise_frames
from whatsappd.sandbox.protocol.violations import ProtocolViolation

#: The most bytes of one WebSocket frame. The largest frame of WhatsApp's that the sandbox takes
#: fits, with the stream's header and small frames beside it. (whatsmeow sends each of its frames in
#: a message of its own.)
MAX_FRAME = noise_frames.MAX_FRAME + 64 * 1024


class ServerWebSocket:
    """The frames of one connection, after the opening handshake (`http_opening`)."""

    def __init__(self) -> None:
        self._rules = _FrameRules()
        self._frames = Connection(ConnectionType.SERVER, extensions=[self._rules])
        self._replies: list[bytes] = []

    @property
    def is_closed(self) -> bool:
        """Whether the client has closed the WebSocket: nothing more comes from it."""
        return self._frames.state is ConnectionState.CLOSED

    def receive(self, data: bytes) -> bytes:
        """The payload in `data`, which may be cut anywhere. What follows a close is dropped.

        Raises:
            ProtocolViolation: the bytes are no client's WebSocket frames, or a frame is text, or
                its header says more than `MAX_FRAME` bytes.
        """
        if self.is_closed:
            return b""
        self._frames.receive_data(data)
        pieces: list[bytes] = []
        for event in self._frames.events():
            if isinstance(event, BytesMessage):
                pieces.append(bytes(event.data))
            elif isinstance(event, Ping):
                if self._frames.state is ConnectionState.OPEN:
                    self._replies.append(self._frames.send(event.response()))
            elif isinstance(event, CloseConnection):
                if self._frames.state is ConnectionState.REMOTE_CLOSING:
                    self._replies.append(self._frames.send(event.response()))
                elif not self.is_closed:
                    # wsproto reports malformed frames as a close of our own.
                    raise ProtocolViolation(self._rules.complaint or f"WebSocket: {event.reason}")
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take_replies(self) -> list[bytes]:
        """What answers the client's pings and its close, since the last call."""
        replies, self._replies = self._replies, []
        return replies

    def message(self, payload: bytes) -> bytes:
        """A binary message in one frame; empty if the WebSocket is closed."""
        if self._frames.state is not ConnectionState.OPEN:
            return b""
        return self._frames.send(BytesMessage(data=payload))

    def close(self) -> bytes:
        """A close frame with code 1000; empty if the WebSocket is closed already."""
        if self._frames.state is not ConnectionState.OPEN:
            return b""
        return self._frames.send(CloseConnection(code=CloseReason.NORMAL_CLOSURE))


class _FrameRules(Extension):
    """Refuses frames by their headers, before wsproto takes the payload.

    wsproto calls it as an extension of the WebSocket; it is never offered to the client.
    """

    name = "whatsappd-frame-rules"

    def __init__(self) -> None:
        self.complaint: str | None = None

    def offer(self) -> bool:
        return False

    def enabled(self) -> bool:
        return True

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        if payload_length > MAX_FRAME:
            self.complaint = f"a WebSocket frame of {payload_length} bytes exceeds {MAX_FRAME}"
            return CloseReason.MESSAGE_TOO_BIG
        if opcode is Opcode.TEXT:
            self.complaint = "a WebSocket frame of text: WhatsApp's clients send binary ones"
            return CloseReason.UNSUPPORTED_DATA
        return RsvBits(False, False, False)
