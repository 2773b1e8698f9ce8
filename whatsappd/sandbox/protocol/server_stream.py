"""The server's end of one client's stream: WebSocket bytes in, stanza bytes out, and back. Sans-IO.

Inwards it takes off the layers one by one: the WebSocket (`websocket`), the frames
(`noise_frames`), the handshake and then the encryption (`noise`). `server.connection` does the I/O.

    stream header, ClientHello  ->  (reply) ServerHello
    ClientFinish                ->  FinishedHandshake
    frame, frame, …             ->  a stanza each (`stanza_codec`)
"""

from __future__ import annotations

from collections.abc import Iterator

from whatsappd.sandbox.protocol.noise import (
    FinishedHandshake,
    NoiseHandshake,
    NoiseIdentity,
    NoiseTransport,
)
from whatsappd.sandbox.protocol.noise_frames import NoiseFrameReader, frame
from whatsappd.sandbox.protocol.websocket import ServerWebSocket

#: Frames are gathered into WebSocket messages of about this size, in bytes. None is cut in two:
#: whatsmeow puts such a frame together wrongly.
_MESSAGE_SIZE = 256 * 1024


class ServerStream:
    """The layers of one connection, after the WebSocket's opening handshake.

    What is to be sent comes out in two ways: `take_replies` has what the layers answer by
    themselves, `take_stanzas` what was enqueued, for when the caller has committed it.
    """

    def __init__(self, identity: NoiseIdentity) -> None:
        self._identity = identity
        self._websocket = ServerWebSocket()
        self._frames = NoiseFrameReader()
        self._handshake: NoiseHandshake | None = None
        self._transport: NoiseTransport | None = None
        self._replies: list[bytes] = []
        self._outgoing: list[bytes] = []

    @property
    def is_closed(self) -> bool:
        """Whether the client has closed its WebSocket: nothing more comes from it."""
        return self._websocket.is_closed

    def receive(self, data: bytes) -> Iterator[FinishedHandshake | bytes]:
        """What `data`, cut anywhere, completes: the handshake once, then stanzas.

        It is a generator, so that the caller handles each stanza before the next is decrypted;
        decrypting counts frames, so the caller must exhaust it.

        Raises:
            ProtocolViolation: the bytes are not what the protocol allows; the stream is at its end.
        """
        payload = self._websocket.receive(data)
        self._replies += self._websocket.take_replies()
        for piece in self._frames.feed(payload):
            if self._transport is not None:
                yield self._transport.decrypt(piece)
            elif self._handshake is None:
                assert self._frames.header is not None
                self._handshake = NoiseHandshake(self._identity, self._frames.header)
                answer = frame(self._handshake.answer(piece))
                self._replies.append(self._websocket.message(answer))
            else:
                finished = self._handshake.finish(piece)
                self._transport = finished.transport
                yield finished

    def enqueue(self, stanza: bytes) -> None:
        """Encrypt a stanza for `take_stanzas`. Before the handshake has finished: do nothing."""
        if self._transport is not None:
            self._outgoing.append(frame(self._transport.encrypt(stanza)))

    def take_replies(self) -> bytes:
        """What the layers answered: ServerHello, pongs, the client's close. Often empty."""
        replies, self._replies = self._replies, []
        return b"".join(replies)

    def take_stanzas(self) -> bytes:
        """The stanzas that were enqueued, in as few WebSocket messages as sizes allow."""
        outgoing, self._outgoing = self._outgoing, []
        size = 0
        start = 0
        messages = []
        for number, piece in enumerate(outgoing):
            size += len(piece)
            if size >= _MESSAGE_SIZE:
                messages.append(self._websocket.message(b"".join(outgoing[start : number + 1])))
                start, size = number + 1, 0
        if size:
            messages.append(self._websocket.message(b"".join(outgoing[start:])))
        return b"".join(messages)

    def close(self) -> bytes:
        """The WebSocket's close frame."""
        return self._websocket.close()
