"""The layers of one connection together, joined with a client in memory: bytes in, stanzas out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from wire_client import HEADER, NoiseClient, websocket_frame

from whatsappd.sandbox.protocol.noise import FinishedHandshake, NoiseIdentity
from whatsappd.sandbox.protocol.noise_frames import NoiseFrameReader, frame
from whatsappd.sandbox.protocol.server_stream import ServerStream
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.server.noise_keys import load_noise_identity


class MemoryClient:
    """The other end of a `ServerStream`, without sockets."""

    def __init__(self, identity: NoiseIdentity) -> None:
        self.stream = ServerStream(identity)
        self._noise = NoiseClient()
        self._sent = self._received = 0
        self._reader = NoiseFrameReader()
        self._reader.feed(HEADER)  # servers send none

    def give(self, data: bytes, step: int = 1 << 20) -> list[FinishedHandshake | bytes]:
        """What the stream makes of `data`, given in pieces."""
        received: list[FinishedHandshake | bytes] = []
        for start in range(0, len(data), step):
            received += self.stream.receive(data[start : start + step])
        return received

    def shake_hands(self, step: int = 1 << 20) -> FinishedHandshake:
        assert self.give(websocket_frame(HEADER + frame(self._noise.hello())), step) == []
        [hello] = self.frames(self.stream.take_replies())
        last, _, _ = self._noise.finish(hello, b"who I am")
        [finished] = self.give(websocket_frame(frame(last)), step)
        self._send, self._receive = (AESGCM(key) for key in self._noise.hkdf(b""))
        assert isinstance(finished, FinishedHandshake)
        return finished

    def encrypted(self, stanza: bytes) -> bytes:
        """The next frame."""
        self._sent += 1
        return frame(self._send.encrypt((self._sent - 1).to_bytes(12, "big"), stanza, None))

    def decrypted(self, messages: bytes) -> list[bytes]:
        """The stanzas in the server's WebSocket messages."""
        stanzas = []
        for payload in self.frames(messages):
            nonce = self._received.to_bytes(12, "big")
            self._received += 1
            stanzas.append(self._receive.decrypt(nonce, payload, None))
        return stanzas

    def frames(self, messages: bytes) -> list[bytes]:
        """The frames in the server's WebSocket messages, each of which must hold whole ones."""
        found = []
        while messages:
            width = {126: 4, 127: 10}.get(messages[1], 2)
            size = int.from_bytes(messages[2:width], "big") if width > 2 else messages[1]
            payload, messages = messages[width : width + size], messages[width + size :]
            reader = NoiseFrameReader()
            reader.feed(HEADER)
            whole = reader.feed(payload)
            assert sum(3 + len(each) for each in whole) == size, "a frame was cut in two"
            found += whole
        return found


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> NoiseIdentity:
    directory: Path = tmp_path_factory.mktemp("keys")
    return load_noise_identity(directory / "noise.json")


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=4), st.integers(1, 40))
def test_stanzas_arrive_whole_and_in_order_however_the_bytes_are_cut(
    identity: NoiseIdentity, stanzas: list[bytes], step: int
) -> None:
    client = MemoryClient(identity)
    finished = client.shake_hands(step)
    assert finished.payload == b"who I am"
    frames = b"".join(map(client.encrypted, stanzas))
    assert client.give(websocket_frame(frames), step) == stanzas
    for stanza in stanzas:
        client.stream.enqueue(stanza)
    assert client.decrypted(client.stream.take_stanzas()) == stanzas
    assert client.stream.take_stanzas() == b""


def test_many_stanzas_go_in_few_messages_and_no_frame_is_cut(identity: NoiseIdentity) -> None:
    client = MemoryClient(identity)
    client.shake_hands()
    stanzas = [os.urandom(100_000) for _ in range(8)]
    for stanza in stanzas:
        client.stream.enqueue(stanza)
    assert client.decrypted(client.stream.take_stanzas()) == stanzas


def test_nothing_is_sent_unencrypted(identity: NoiseIdentity) -> None:
    client = MemoryClient(identity)
    client.stream.enqueue(b"before the handshake")
    assert client.stream.take_stanzas() == b""


def test_what_came_before_a_violation_is_handled(identity: NoiseIdentity) -> None:
    client = MemoryClient(identity)
    client.shake_hands()
    received = client.stream.receive(
        websocket_frame(client.encrypted(b"a stanza") + frame(os.urandom(40)))
    )
    assert next(received) == b"a stanza"
    with pytest.raises(ProtocolViolation, match="decrypt"):
        next(received)


def test_a_ping_is_answered_and_a_close_ends_the_stream(identity: NoiseIdentity) -> None:
    client = MemoryClient(identity)
    client.shake_hands()
    assert client.give(websocket_frame(b"there?", 9)) == []
    assert client.stream.take_replies() == b"\x8a\x06there?"
    assert client.give(websocket_frame(b"\x03\xe8", 8)) == []
    assert client.stream.is_closed
    client.stream.enqueue(b"too late")
    assert client.stream.take_replies() == b"\x88\x02\x03\xe8"
    assert client.stream.take_stanzas() == b""
