"""The client's end of the RPC without a socket: whole, a byte at a time, and in any pieces."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.errors import InvalidParams, Malformed, NotConnected, Stopping, Unreachable
from whatsappd.wire.client_exchange import Answer, ClientExchange, Notice
from whatsappd.wire.rpc import MAX_MSGID, pack_last_word

AWAY = NotConnected("acme is not connected", company="acme")


@pytest.fixture
def exchange() -> ClientExchange:
    """Three requests, 1 to 3, have no answer yet."""
    exchange = ClientExchange()
    for number in range(1, 4):
        msgid, packed = exchange.request("m.n", {"number": number})
        assert (msgid, msgpack.unpackb(packed)) == (
            number,
            [0, number, "m.n", [{"number": number}]],
        )
    return exchange


def answer(msgid: int, result: Any = None, error: Any = None) -> bytes:
    packed: bytes = msgpack.packb([1, msgid, error, result])
    return packed


CONVERSATION = b"".join(
    (
        answer(2, "second"),
        msgpack.packb([2, "event", [{"seq": 7}]]),
        answer(1, error=AWAY.as_wire()),
        msgpack.packb([2, "error", [{**AWAY.as_wire(), "data": {"method": "m.n"}}]]),
        answer(3, {"id": "00aa"}),
        pack_last_word(Stopping("the daemon is stopping")),
    )
)


def check_conversation(exchange: ClientExchange, pieces: list[bytes]) -> None:
    told = [each for piece in pieces for each in exchange.receive(piece)]
    second, event, first, failed, third = told
    assert second == Answer(2, None, "second")
    assert event == Notice("event", {"seq": 7})
    assert isinstance(first, Answer)
    assert isinstance(first.error, NotConnected)
    assert (first.msgid, first.error.data, first.result) == (1, {"company": "acme"}, None)
    assert isinstance(failed, Notice)
    assert failed.arguments["data"] == {"method": "m.n"}
    assert third == Answer(3, None, {"id": "00aa"})
    assert isinstance(exchange.ended, Stopping)


def test_in_one_piece(exchange: ClientExchange) -> None:
    check_conversation(exchange, [CONVERSATION])


def test_a_byte_at_a_time(exchange: ClientExchange) -> None:
    check_conversation(
        exchange, [CONVERSATION[place : place + 1] for place in range(len(CONVERSATION))]
    )


@given(st.lists(st.integers(0, len(CONVERSATION))))
def test_in_any_pieces(cuts: list[int]) -> None:
    exchange = ClientExchange()
    for _ in range(3):
        exchange.request("m.n", {})
    ends = [*sorted(cuts), len(CONVERSATION)]
    pieces = [CONVERSATION[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    check_conversation(exchange, pieces)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_do_more_than_end_it(first: bytes, second: bytes) -> None:
    exchange = ClientExchange()
    exchange.request("m.n", {})
    told = [*exchange.receive(first), *exchange.receive(second)]
    assert sum(isinstance(each, Answer) for each in told) <= 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xc1", "MessagePack"),
        (msgpack.packb(5), "must be an array"),
        (msgpack.packb([0, 1, "m.n", []]), "sent a request"),
        (answer(4), "what was not asked: 4"),
        (answer(2) * 2, "what was not asked: 2"),
        (msgpack.packb([True, 1, None, None]), "must begin with its type"),
    ],
)
def test_what_no_daemon_says_ends_it(exchange: ClientExchange, data: bytes, words: str) -> None:
    exchange.receive(data)
    assert isinstance(exchange.ended, Malformed)
    assert words in exchange.ended.message


def test_what_came_before_the_end_counts(exchange: ClientExchange) -> None:
    assert exchange.receive(answer(1, "right") + msgpack.packb(5)) == [Answer(1, None, "right")]
    assert isinstance(exchange.ended, Malformed)


def test_nothing_is_asked_or_taken_after_the_end(exchange: ClientExchange) -> None:
    exchange.end(Unreachable("the socket is closed"))
    exchange.end(Stopping("too late to be the reason"))
    assert exchange.receive(answer(1)) == []
    with pytest.raises(Unreachable) as first:
        exchange.request("m.n", {})
    with pytest.raises(Unreachable) as second:
        exchange.request("m.n", {})
    assert first.value is not second.value  # each caller's has a traceback of its own


def test_numbers_begin_again_and_pass_over_those_without_an_answer(
    exchange: ClientExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange.receive(answer(2))
    exchange._last_msgid = MAX_MSGID
    assert [exchange.request("m.n", {})[0] for _ in range(2)] == [2, 4]


def test_a_request_that_cannot_be_packed_takes_no_number(exchange: ClientExchange) -> None:
    with pytest.raises(InvalidParams, match="value"):
        exchange.request("m.n", {"value": object()})
    assert exchange.request("m.n", {})[0] == 4


def test_in_whose_name_a_request_is_made() -> None:
    _, packed = ClientExchange().request("m.n", {}, actor="key:ab")
    assert msgpack.unpackb(packed) == [0, 1, "m.n", [{}, {"actor": "key:ab"}]]
