"""The codecs under the stanzas: protobuf, XEdDSA, the WebSocket and its opening, frames."""

from __future__ import annotations

import base64
import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_client import websocket_frame

from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.http_opening import HttpOpening
from whatsappd.sandbox.protocol.noise_frames import MAX_FRAME, NoiseFrameReader, frame
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.protocol.websocket import ServerWebSocket
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner, verify

# --- protobuf ---------------------------------------------------------------------------------

values = st.dictionaries(
    st.integers(1, 2000), st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=50)), max_size=8
)


@given(values)
def test_protobuf_round_trip(fields: dict[int, int | bytes]) -> None:
    decoded = protobuf.decode(protobuf.encode(fields))
    for number, value in fields.items():
        assert number in decoded
        if isinstance(value, int):
            assert decoded.number(number) == value
        else:
            assert decoded.data(number) == value
    assert decoded.number(3000) == 0
    assert decoded.data(3000) == b""


def test_protobuf_agrees_with_the_real_library() -> None:
    neonize = pytest.importorskip("google.protobuf.wrappers_pb2")
    assert protobuf.encode({1: 300}) == neonize.UInt32Value(value=300).SerializeToString()
    assert protobuf.encode({1: "ä"}) == neonize.StringValue(value="ä").SerializeToString()
    assert protobuf.decode(bytes.fromhex("0d01000000")).number(1) == 1  # fixed32
    assert protobuf.decode(bytes.fromhex("090100000000000000")).number(1) == 1  # fixed64


@given(st.binary(max_size=100))
def test_protobuf_garbage_is_a_violation(data: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        fields = protobuf.decode(data)
        fields.number(1)
        fields.text(2)
        fields.message(3)


# --- XEdDSA -----------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_a_signature_verifies_with_its_key_and_message_only(seed: bytes, message: bytes) -> None:
    signer = XEdDsaSigner(seed)
    signature = signer.sign(message)
    assert verify(signer.public, message, signature)
    assert not verify(signer.public, message + b"x", signature)
    assert not verify(XEdDsaSigner().public, message, signature)
    damaged = bytearray(signature)
    damaged[5] ^= 1
    assert not verify(signer.public, message, bytes(damaged))


@given(st.binary(max_size=40), st.binary(max_size=70))
def test_garbage_never_verifies(key: bytes, signature: bytes) -> None:
    assert not verify(key, b"message", signature)
    assert not verify(bytes(32), b"message", bytes(64))
    assert not verify((2**255 - 20).to_bytes(32, "little"), b"message", bytes(64))


# --- WebSocket --------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_client_frames_arrive_whole_however_they_are_cut(parts: list[bytes], step: int) -> None:
    socket = ServerWebSocket()
    stream = b"".join(websocket_frame(part) for part in parts)
    received = b"".join(
        socket.receive(stream[start : start + step]) for start in range(0, len(stream), step)
    )
    assert received == b"".join(parts)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_sizes_of_frames(size: int) -> None:
    payload = os.urandom(size)
    assert ServerWebSocket().receive(websocket_frame(payload)) == payload
    message = ServerWebSocket().message(payload)
    assert message.endswith(payload)
    assert len(message) - size == (2 if size < 126 else 4 if size < 65536 else 10)


def test_pings_are_answered_and_a_close_is_returned() -> None:
    socket = ServerWebSocket()
    fragments = websocket_frame(b"a", final=False) + websocket_frame(b"p", 9)
    fragments += websocket_frame(b"b", 0)
    closing = websocket_frame(b"\x03\xe8", 8) + websocket_frame(b"late")
    assert socket.receive(fragments + closing) == b"ab"
    assert socket.take_replies() == [b"\x8a\x01p", b"\x88\x02\x03\xe8"]
    assert socket.is_closed


@pytest.mark.parametrize(
    "frame",
    [
        b"\x82\x01a",
        b"\xc2\x81\0\0\0\0a",
        websocket_frame(b"text", 1),
        b"\x82\xff\0\0\0\0\xff\0\0\0",
    ],
    ids=["unmasked", "compressed", "text", "too large"],
)
def test_frames_no_client_may_send(frame: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        ServerWebSocket().receive(frame)


def test_the_largest_frame_passes_among_others_in_one_message() -> None:
    sent = [bytes(10), bytes(MAX_FRAME), bytes(5)]
    stream = websocket_frame(b"WA\x06\x03" + b"".join(map(frame, sent)))
    socket, reader = ServerWebSocket(), NoiseFrameReader()
    received = []
    for start in range(0, len(stream), 65536):
        received += reader.feed(socket.receive(stream[start : start + 65536]))
    assert received == sent


def test_what_no_frame_can_fill_is_not_waited_for() -> None:
    head = b"\x82\xff" + (MAX_FRAME + (1 << 17)).to_bytes(8, "big")
    with pytest.raises(ProtocolViolation, match="exceeds"):
        ServerWebSocket().receive(head)


def test_the_opening_handshake_of_the_rfc() -> None:
    request = HttpOpening()
    head = (
        b"GET /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    assert request.receive(head + b"the first frame")
    answer = request.accept_websocket()
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert b"Extensions" not in answer
    assert (request.target, request.rest) == ("/ws/chat", b"the first frame")


@pytest.mark.parametrize(
    "head", [b"", b"GET /", b"GET / SPDY/1", b"GET / HTTP/1.1\r\nx", b"\xff", b"GET / HTTP/1.1"]
)
def test_heads_that_are_no_request(head: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        HttpOpening().receive(head + b"\r\n\r\n")


def test_a_request_that_asks_for_no_websocket_or_has_a_body_is_a_violation() -> None:
    request = HttpOpening()
    assert request.receive(b"GET /ws/chat HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ProtocolViolation, match="WebSocket"):
        request.accept_websocket()
    with pytest.raises(ProtocolViolation, match="body"):
        HttpOpening().receive(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")


# --- frames -----------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50), st.booleans())
def test_frames_are_cut_after_the_header(parts: list[bytes], step: int, routed: bool) -> None:
    reader = NoiseFrameReader()
    routing = b"ED\0\x01" + frame(base64.b64encode(b"routing")) if routed else b""
    stream = routing + b"WA\x06\x03" + b"".join(map(frame, parts))
    received = []
    for start in range(0, len(stream), step):
        received += reader.feed(stream[start : start + step])
    assert received == parts
    assert reader.header == b"WA\x06\x03"


def test_the_largest_frame_passes_and_a_larger_one_is_not_waited_for() -> None:
    largest = frame(bytes(MAX_FRAME))
    assert NoiseFrameReader().feed(b"WA\x06\x03" + largest) == [bytes(MAX_FRAME)]
    for sent in (1, MAX_FRAME + 1):
        head = (MAX_FRAME + 1).to_bytes(3, "big")
        with pytest.raises(ProtocolViolation, match="exceeds"):
            NoiseFrameReader().feed(b"WA\x06\x03" + head + bytes(sent))


def test_a_stream_without_the_header_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation):
        NoiseFrameReader().feed(b"GET /")
