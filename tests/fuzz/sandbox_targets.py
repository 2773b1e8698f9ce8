"""The sandbox's readers: every byte that a client of the loopback WhatsApp may send."""

from __future__ import annotations

import zlib
from typing import Any

import hostile
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import strategies as st
from targets import Target, pieces

from whatsappd.model.jid import Jid
from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.http_opening import HttpOpening
from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.protocol.noise import NoiseHandshake, NoiseIdentity, NoiseTransport
from whatsappd.sandbox.protocol.noise_frames import NoiseFrameReader, frame
from whatsappd.sandbox.protocol.stanza_codec import StanzaCodec
from whatsappd.sandbox.protocol.token_dictionary import TokenDictionary
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.protocol.websocket import ServerWebSocket
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner

# Any tables of the real shape do for the codec; the real ones need the Go library.
WORDS = ("xmlstreamstart", "xmlstreamend", "s.whatsapp.net", "type", "to", "message", "lid", "iq")
CODEC = StanzaCodec(
    TokenDictionary(
        ("", *WORDS, *(f"single{number}" for number in range(235 - len(WORDS)))),
        tuple(tuple(f"double{table}.{number}" for number in range(256)) for table in range(4)),
    )
)

# --- stanzas ----------------------------------------------------------------------------------

digits = st.text("0123456789", min_size=1, max_size=15)
jids = st.one_of(
    st.builds(Jid, digits, st.sampled_from(("s.whatsapp.net", "lid")), st.integers(0, 255)),
    st.builds(Jid, digits, st.sampled_from(("g.us", "broadcast", "newsletter")), st.just(0)),
    st.just(Jid("", "s.whatsapp.net")),
)
words = st.one_of(
    st.sampled_from(WORDS),
    st.text("0123456789.-", min_size=1, max_size=130),
    st.text("0123456789ABCDEF", min_size=1, max_size=130),
    st.text(min_size=1, max_size=40),
)
nodes = st.recursive(
    st.builds(
        Node,
        words,
        st.dictionaries(words, words | jids, max_size=4),
        st.none() | st.binary(max_size=300),
    ),
    lambda inner: st.builds(Node, words, st.just({}), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=6,
)


def check_round_trip(node: Node) -> None:
    """What is encoded is decoded, also when it comes compressed."""
    encoded = CODEC.encode(node)
    assert CODEC.decode(encoded) == node
    assert CODEC.decode(b"\x02" + zlib.compress(encoded[1:], 1)) == node


def check_stanza(data: bytes) -> None:
    """It is a stanza, which can be encoded again, or a violation of the protocol."""
    for flagged in (data, b"\0" + data):
        try:
            node = CODEC.decode(flagged)
        except ProtocolViolation as violation:
            assert str(violation)
        else:
            CODEC.decode(CODEC.encode(node))


# --- protobuf ---------------------------------------------------------------------------------

fields = st.dictionaries(
    st.integers(1, 2**29 - 1), st.integers(0, 2**64 - 1) | st.binary(max_size=40), max_size=5
)


def check_protobuf(data: bytes) -> None:
    try:
        decoded = protobuf.decode(data)
        for number in (1, 2, 3, 19):
            assert isinstance(decoded.number(number), int)
            assert isinstance(decoded.text(number), str)
            decoded.message(number)
    except ProtocolViolation as violation:
        assert str(violation)


# --- WebSocket and frames ---------------------------------------------------------------------


def masked(payload: bytes, opcode: int = 2, mask: bytes = b"\1\2\3\4") -> bytes:
    """A client's WebSocket frame."""
    size = len(payload)
    head = bytes([0x80 | opcode])
    head += bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


websockets = hostile.damaged(
    st.lists(
        st.builds(masked, st.binary(max_size=200), st.sampled_from((0, 2, 8, 9, 10))), max_size=4
    ).map(b"".join)
)


def check_websocket(data: bytes) -> None:
    assert _fed(data, 1) == _fed(data, 4096)


def _fed(data: bytes, size: int) -> Any:
    socket = ServerWebSocket()
    received = b""
    try:
        for piece in pieces(data, size):
            received += socket.receive(piece)
    except ProtocolViolation as violation:
        return str(violation)
    return received, socket.take_replies(), socket.is_closed


heads = hostile.damaged(
    st.just(
        b"GET /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
)


def check_head(data: bytes) -> None:
    request = HttpOpening()
    try:
        if not request.receive(data):
            return
        answer = request.accept_websocket()
    except ProtocolViolation as violation:
        assert str(violation)
    else:
        assert answer.count(b"\r\n\r\n") == 1  # nothing of the request splits the answer
        assert answer.endswith(b"\r\n\r\n")


header = st.sampled_from((b"WA\x06\x03", b"ED\0\1\0\0\2ab" + b"WA\x06\x03", b"GET /", b""))
frames = hostile.damaged(
    st.tuples(header, st.lists(st.binary(max_size=60).map(frame), max_size=4).map(b"".join)).map(
        b"".join
    )
)


def check_frames(data: bytes) -> None:
    found = []
    for size in (1, 4096):
        reader = NoiseFrameReader()
        cut: list[bytes] = []
        try:
            for piece in pieces(data, size):
                cut += reader.feed(piece)
        except ProtocolViolation as violation:
            found.append(str(violation))
        else:
            found.append(repr((cut, reader.header)))
    assert found[0] == found[1]


# --- Noise ------------------------------------------------------------------------------------

IDENTITY = NoiseIdentity(
    XEdDsaSigner(b"1" * 32), XEdDsaSigner(b"2" * 32), X25519PrivateKey.from_private_bytes(b"3" * 32)
)
keys = st.binary(min_size=32, max_size=32) | st.sampled_from((bytes(32), b"\1" + bytes(31), b""))
hellos = hostile.damaged(
    keys.map(lambda key: protobuf.encode({2: protobuf.encode({1: key})})),
)
finishes = hostile.damaged(
    st.tuples(st.binary(max_size=60), st.binary(max_size=60)).map(
        lambda pair: protobuf.encode({4: protobuf.encode({1: pair[0], 2: pair[1]})})
    )
)


def check_noise(given: tuple[bytes, bytes, bytes]) -> None:
    """Nobody gets through a handshake, or a frame past it, by guessing."""
    hello, finish, ciphertext = given
    handshake = NoiseHandshake(IDENTITY, b"WA\x06\x03")
    transport = NoiseTransport(b"4" * 32, b"5" * 32)
    for step in (
        lambda: protobuf.decode(handshake.answer(hello)).message(3),
        lambda: _never(handshake.finish(finish)),
        lambda: _never(transport.decrypt(ciphertext)),
    ):
        try:
            step()
        except ProtocolViolation as violation:
            assert str(violation)


def _never(result: object) -> None:
    raise AssertionError(f"garbage was taken for {result!r}")


IQ = Node("iq", {"type": "set", "to": Jid("15550100", "s.whatsapp.net", 1)}, [Node("x", {}, b"y")])
TARGETS = [
    Target("stanzas, round trip", nodes, check_round_trip),
    Target(
        "stanzas",
        hostile.damaged(nodes.map(CODEC.encode)),
        check_stanza,
        (CODEC.encode(IQ), b"\0\xf8\x01\xfa\xff\x82\x12\x3f\x07", b"\0\xf8\x01\xf6\x03\0\1\3"),
    ),
    Target(
        "protobuf",
        hostile.damaged(fields.map(protobuf.encode)),
        check_protobuf,
        (protobuf.encode({1: 5, 2: b"ab", 19: protobuf.encode({1: b"x"})}), b"\x0d\1\0\0\0"),
    ),
    Target("WebSocket", websockets, check_websocket, (masked(b"a" * 130) + masked(b"", 9),)),
    Target(
        "HTTP requests",
        heads,
        check_head,
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\nUpgrade: websocket\r\n\r\n",),
    ),
    Target("sandbox frames", frames, check_frames, (b"WA\x06\x03" + frame(b"ab") * 2,)),
    Target("Noise", st.tuples(hellos, finishes, st.binary(max_size=60)), check_noise),
]
