"""One value that is there as a whole: nothing may be missing, and nothing follow."""

from __future__ import annotations

import msgpack
import pytest

from whatsappd.errors import Malformed, TooLarge
from whatsappd.wire.frames import MAX_ITEMS, pack, unpack

VALUE = {"company": "acme", "list": [1, -1.5, None, True, b"\0"]}
PACKED = pack(VALUE)


def test_what_was_packed_comes_back() -> None:
    assert unpack(PACKED) == VALUE
    assert unpack(PACKED, max_message=len(PACKED)) == VALUE


@pytest.mark.parametrize("cut", range(len(PACKED)))
def test_a_part_is_no_value(cut: int) -> None:
    with pytest.raises(Malformed):
        unpack(PACKED[:cut])


@pytest.mark.parametrize(
    "behind", [b"\x05", b"\xc1", b"\xa5ab", b"\xdd", PACKED], ids=lambda behind: behind[:3].hex()
)
def test_nothing_may_follow(behind: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(PACKED + behind)


@pytest.mark.parametrize(
    ("packet", "refusal"),
    [
        (b"\xa1\xff", Malformed),  # no UTF-8
        (msgpack.packb({1: 2}), Malformed),  # a number for a name
        (b"\x91" * 100_000, Malformed),
        (msgpack.packb(msgpack.ExtType(5, b"")), Malformed),
        (msgpack.packb(msgpack.ExtType(5, b"x")), TooLarge),
        (msgpack.packb([0] * (MAX_ITEMS + 1)), TooLarge),
        (msgpack.packb("x" * (1 << 20)), TooLarge),
    ],
    ids=["torn text", "number as key", "nested", "extension", "full extension", "list", "text"],
)
def test_the_limits_of_streams_are_those_of_packets(
    packet: bytes, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        unpack(packet)
