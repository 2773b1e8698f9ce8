"""The stanza codec: what it encodes it decodes, and garbage ends in ProtocolViolation only."""

from __future__ import annotations

import contextlib
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.model.jid import Jid
from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.protocol.stanza_codec import MAX_DEPTH, MAX_STANZA, StanzaCodec
from whatsappd.sandbox.protocol.token_dictionary import TokenDictionary
from whatsappd.sandbox.protocol.violations import ProtocolViolation

# The real dictionary needs the Go library; any tables of the same shape do for the codec.
KNOWN = ["xmlstreamstart", "xmlstreamend", "s.whatsapp.net", "type", "to", "message", "lid", "iq"]
DICTIONARY = TokenDictionary(
    ("", *KNOWN, *(f"single{number}" for number in range(235 - len(KNOWN)))),
    tuple(tuple(f"double{table}.{number}" for number in range(256)) for table in range(4)),
)
CODEC = StanzaCodec(DICTIONARY)

digits = st.text("0123456789", min_size=1, max_size=15)
jids = st.one_of(
    st.builds(Jid, digits, st.sampled_from(["s.whatsapp.net", "lid"]), st.integers(0, 255)),
    st.builds(Jid, digits, st.sampled_from(["g.us", "broadcast", "newsletter"]), st.just(0)),
    st.just(Jid("", "s.whatsapp.net")),
)
words = st.one_of(
    st.sampled_from(DICTIONARY.single[1:] + DICTIONARY.double[0] + DICTIONARY.double[3]),
    st.text("0123456789.-", min_size=1, max_size=200),
    st.text("0123456789ABCDEF", min_size=1, max_size=200),
    st.text(min_size=1, max_size=300),
)
attributes = st.dictionaries(words, st.one_of(words, jids), max_size=5)
nodes = st.recursive(
    st.builds(Node, words, attributes, st.one_of(st.none(), st.binary(max_size=400))),
    lambda children: st.builds(Node, words, attributes, st.lists(children, min_size=1, max_size=4)),
    max_leaves=20,
)


@given(nodes)
def test_what_is_encoded_is_decoded(node: Node) -> None:
    assert CODEC.decode(CODEC.encode(node)) == node


@given(nodes)
def test_a_compressed_stanza_is_decoded(node: Node) -> None:
    plain = CODEC.encode(node)
    assert CODEC.decode(b"\x02" + zlib.compress(plain[1:])) == node


@given(st.binary(max_size=300))
def test_garbage_is_a_violation(data: bytes) -> None:
    for frame in (data, b"\0" + data, b"\2" + data):
        with contextlib.suppress(ProtocolViolation):
            CODEC.decode(frame)


@given(nodes, st.data())
def test_a_truncated_stanza_is_a_violation(node: Node, data: st.DataObject) -> None:
    encoded = CODEC.encode(node)
    with pytest.raises(ProtocolViolation):
        CODEC.decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@pytest.mark.parametrize(
    ("node", "encoded"),
    [
        (Node("iq"), "00 f801 08"),
        (Node("iq", {"type": "message"}), "00 f803 08 04 06"),
        (Node("iq", {"to": Jid("", "s.whatsapp.net")}), "00 f803 08 05 fa0003"),
        (Node("iq", {"to": Jid("123", "lid", 7)}), "00 f803 08 05 f70107 ff82123f"),
        (Node("iq", {"to": Jid("123", "lid")}), "00 f803 08 05 fa ff82123f 07"),
        (Node("iq", {"type": "3EB0"}), "00 f803 08 04 fb023eb0"),
        (Node("iq", {"type": "double1.2"}), "00 f803 08 04 ed02"),
        (Node("iq", {}, b"ab"), "00 f802 08 fc026162"),
        (Node("iq", {}, [Node("message")]), "00 f802 08 f801 f801 06"),
        (Node("iq", {}, []), "00 f802 08 00"),
    ],
)
def test_bytes_are_those_of_the_format(node: Node, encoded: str) -> None:
    assert CODEC.encode(node) == bytes.fromhex(encoded)


def test_content_that_is_a_token_is_text_and_has_bytes() -> None:
    node = CODEC.decode(CODEC.encode(Node("iq", {}, "message")))
    assert node.content == "message"
    assert node.data == b"message"


def test_large_content_and_long_lists() -> None:
    for size in (255, 256, (1 << 20) - 1, 1 << 20):
        node = Node("iq", {}, bytes(size))
        assert CODEC.decode(CODEC.encode(node)) == node
    many = Node("iq", {}, [Node("message")] * 300)
    assert CODEC.decode(CODEC.encode(many)) == many


def test_nesting_is_limited() -> None:
    node = Node("iq")
    for _ in range(MAX_DEPTH + 2):
        node = Node("iq", {}, [node])
    with pytest.raises(ProtocolViolation, match="nested"):
        CODEC.decode(CODEC.encode(node))


@pytest.mark.parametrize("size", [MAX_STANZA + 1, 20_000_000])
def test_a_decompression_bomb_is_a_violation(size: int) -> None:
    with pytest.raises(ProtocolViolation, match="exceeds"):
        CODEC.decode(b"\x02" + zlib.compress(bytes(size)))


def test_a_compressed_stanza_may_have_all_that_a_plain_one_may() -> None:
    node = Node("iq", {}, bytes(MAX_STANZA - 8))
    plain = CODEC.encode(node)[1:]
    assert len(plain) == MAX_STANZA
    assert CODEC.decode(b"\x02" + zlib.compress(plain)) == node


def many_elements(size: int) -> bytes:
    """A stanza of at most `size` bytes with as many elements as there is room for: the worst."""
    elements = 4_000
    lists = size // (3 * elements + 6)
    each = b"\xf8\x02\x03\xf9" + elements.to_bytes(2, "big") + b"\xf8\x01\x03" * elements
    stanza = b"\xf8\x02\x03" + bytes((0xF8, lists)) + each * lists
    assert size * 0.9 < len(stanza) <= size
    return stanza


def decoded_memory(stanza: bytes) -> int:
    """The most bytes that were in use while the stanza was decoded."""
    tracemalloc.start()
    try:
        CODEC.decode(b"\x02" + zlib.compress(stanza))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_is_made_of_a_stanza_is_bounded() -> None:
    # It grows with the stanza's size, so that of a part tells that of the largest; tracing the
    # largest itself would take many seconds.
    half, whole = (decoded_memory(many_elements(MAX_STANZA // part)) for part in (32, 16))
    assert 1.8 < whole / half < 2.2
    assert 16 * whole < 70e6
