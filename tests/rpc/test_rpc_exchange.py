"""The server's end of a connection without a socket: whole, a byte at a time, in any pieces."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Value, declared

from whatsappd.api.declaration import NoParams
from whatsappd.errors import Denied, NotConnected, Stopping, TooManyRequests
from whatsappd.rpc.exchange import SLICE, ExchangeRules, ServerExchange, WaitingCall
from whatsappd.rpc.limits import Limits
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.wire.frames import MAX_ITEMS, READ_SIZE

PEER = Peer(pid=4711, uid=1001, gid=1001)


async def _wait(_call: Call, _params: Value) -> Any:
    raise AssertionError("whoever moves the bytes runs it, not the exchange")


def _refuse(_call: Call, _params: NoParams) -> None:
    raise NotConnected("acme is not connected", company="acme")


TABLE = MethodTable(
    [
        declared("test.echo", Value, lambda _call, params: params.value),
        declared("test.who", NoParams, lambda call, _params: call.actor),
        declared("test.refuse", NoParams, _refuse),
        declared("test.secret", NoParams, lambda _call, _params: "told"),
        declared("test.wait", Value, _wait),
    ]
)


class NoConnection:
    """What handlers are given; these do nothing with it."""

    peer = PEER
    closed = False

    def start_soon(self, task: Callable[..., Any], *arguments: Any) -> None:
        raise AssertionError

    def bind_to(self, actor: str) -> None:
        raise AssertionError

    async def notify(self, method: str, arguments: dict[str, Any]) -> None:
        raise AssertionError

    async def notify_packed(self, packed: bytes) -> None:
        raise AssertionError

    def offer_packed(self, packed: bytes) -> bool:
        raise AssertionError


class Plenty:
    """An allowance without bounds, except those that a test sets; counts what is held."""

    def __init__(self) -> None:
        self.unfinished = 0
        self.calls = 0
        self.denials = 0
        self.most_unfinished = 1 << 30
        self.is_due = False
        self.pause = 0.0

    def take_unfinished(self, size: int) -> None:
        if self.unfinished + size > self.most_unfinished:
            raise TooManyRequests("too many halves of messages")
        self.unfinished += size

    def give_unfinished(self, size: int) -> None:
        self.unfinished -= size

    def take_call(self) -> None:
        self.calls += 1

    def give_call(self) -> None:
        self.calls -= 1

    def denied(self, now: float) -> float:
        self.denials += 1
        return self.pause

    def work(self, seconds: float) -> bool:
        assert seconds >= 0
        return self.is_due


def allow(_call: Call, method: Method, _arguments: Any) -> None:
    if method.name == "test.secret":
        raise Denied("not for you")


class Opened:
    """An exchange and whoever moves its bytes, with as little of a life as can be."""

    def __init__(self, limits: Limits | None = None, *, may_speak: bool = True) -> None:
        self.allowance = Plenty()
        self.limits = limits or Limits()
        rules = ExchangeRules(TABLE, allow, self.limits, lambda _peer: may_speak)
        self.exchange = ServerExchange(Call(PEER, NoConnection()), rules, self.allowance)
        self.waiting: list[WaitingCall] = []
        self.sent = b""

    def receive(self, data: bytes, now: float = 0.0) -> None:
        """Take `data`, and do all that there is to do."""
        if self.exchange.error is not None:
            return
        self.exchange.receive(data, now)
        while True:
            self.sent += self.exchange.work(now)
            self.waiting += self.exchange.take_calls()
            self.exchange.take_pause()
            if not self.exchange.has_work:
                return

    def finish(self, result: Any) -> None:
        """Answer the first call that waits."""
        waiting = self.waiting.pop(0)
        self.sent += self.exchange.answer(waiting, result, 0.0) or b""
        self.exchange.finished()

    def told(self) -> list[Any]:
        """Everything that was sent, and the last word if it is over."""
        self.sent += self.exchange.last_word if self.exchange.is_over else b""
        unpacker = msgpack.Unpacker()
        unpacker.feed(self.sent)
        self.sent = b""
        return list(unpacker)


@pytest.fixture
def opened() -> Opened:
    return Opened()


def request(msgid: int, method: str, **arguments: Any) -> bytes:
    packed: bytes = msgpack.packb([0, msgid, method, [arguments] if arguments else []])
    return packed


CONVERSATION = b"".join(
    (
        request(1, "test.echo", value="añb"),
        request(2, "test.wait", value=1),
        msgpack.packb([2, "test.refuse", []]),
        request(3, "test.refuse"),
        msgpack.packb([2, "test.echo", [{"value": "nobody hears it"}]]),
        msgpack.packb([0, 4, "test.who", [{}, {"actor": "key:ab"}]]),
        request(5, "test.echo", value=[1, {"two": None}]),
        msgpack.packb([1, 6, None, "an answer to nothing"]),
        request(7, "test.echo"),
    )
)


def check_conversation(opened: Opened, pieces: list[bytes]) -> None:
    for piece in pieces:
        opened.receive(piece)
    [waiting] = opened.waiting
    assert (waiting.msgid, waiting.method.name, waiting.arguments.value) == (2, "test.wait", 1)
    first, notified, third, fourth, fifth, last = opened.told()
    away = NotConnected("acme is not connected", company="acme").as_wire()
    assert first == [1, 1, None, "añb"]
    told = {**away, "data": {"company": "acme", "method": "test.refuse"}}
    assert notified == [2, "error", [told]]
    assert third == [1, 3, away, None]
    assert fourth == [1, 4, None, "key:ab"]
    assert fifth == [1, 5, None, [1, {"two": None}]]
    assert (last[:2], last[2][0]["name"]) == ([2, "error"], "malformed")
    assert opened.exchange.is_over


def test_in_one_piece(opened: Opened) -> None:
    check_conversation(opened, [CONVERSATION])


def test_a_byte_at_a_time(opened: Opened) -> None:
    pieces = [CONVERSATION[place : place + 1] for place in range(len(CONVERSATION))]
    check_conversation(opened, pieces)
    assert opened.allowance.unfinished == 0


@given(st.lists(st.integers(0, len(CONVERSATION))))
def test_in_any_pieces(cuts: list[int]) -> None:
    ends = [*sorted(cuts), len(CONVERSATION)]
    pieces = [CONVERSATION[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    check_conversation(Opened(), pieces)


@given(st.lists(st.binary(max_size=200) | st.sampled_from([CONVERSATION[:80]]), max_size=4))
def test_no_bytes_do_more_than_end_it(pieces: list[bytes]) -> None:
    opened = Opened()
    for piece in pieces:
        opened.receive(piece)
    for _ in list(opened.waiting):
        opened.finish(None)
    for value in opened.told():
        assert value[0] in (1, 2)
    opened.exchange.release()
    assert (opened.allowance.unfinished, opened.allowance.calls) == (0, 0)


def test_a_waiting_call_is_answered_when_it_is_done(opened: Opened) -> None:
    opened.receive(request(1, "test.wait") + request(2, "test.echo", value="fast"))
    assert opened.told() == [[1, 2, None, "fast"]]
    opened.finish("slow")
    assert opened.told() == [[1, 1, None, "slow"]]
    assert opened.allowance.calls == 0


def test_a_waiting_call_may_fail_and_a_notification_only_says_so(opened: Opened) -> None:
    opened.receive(request(1, "test.wait") + msgpack.packb([2, "test.wait", []]) * 2)
    error = NotConnected("acme is not connected")
    for waiting in opened.waiting[:2]:
        opened.sent += opened.exchange.fail(waiting, error, 0.1, 5.0) or b""
        opened.exchange.finished()
    answer, notified = opened.told()
    assert (answer[1], answer[2]["name"]) == (1, "not_connected")
    assert (notified[1], notified[2][0]["data"]) == ("error", {"method": "test.wait"})
    opened.waiting = opened.waiting[2:]
    opened.finish("nobody asked for it")
    assert opened.told() == []


def test_a_result_that_cannot_be_packed_ends_its_request_only(opened: Opened) -> None:
    opened.receive(request(1, "test.wait") + request(2, "test.echo", value=1))
    opened.finish(object())
    echo, failed = opened.told()
    assert echo == [1, 2, None, 1]
    assert failed[2]["name"] == "internal"


def test_a_result_may_hold_structures_anywhere(opened: Opened) -> None:
    for result in (Value(value=1), [{"within": Value(value=1)}]):
        opened.receive(request(1, "test.wait"))
        opened.finish(result)
    assert [answer[3] for answer in opened.told()] == [{"value": 1}, [{"within": {"value": 1}}]]


def test_an_answer_has_a_largest_size() -> None:
    opened = Opened(Limits(max_message=1000))
    opened.receive(request(1, "test.wait"))
    opened.finish(bytes(1000))
    [[_, msgid, error, _]] = opened.told()
    assert (msgid, error["name"]) == (1, "too_large")


def test_calls_in_flight_are_limited() -> None:
    opened = Opened(Limits(max_in_flight=2))
    opened.receive(b"".join(request(number, "test.wait") for number in range(3)))
    [[_, msgid, error, _]] = opened.told()
    assert (msgid, error["name"], len(opened.waiting)) == (2, "too_many_requests", 2)
    opened.finish(None)
    opened.receive(request(4, "test.wait"))
    assert len(opened.waiting) == 2


def test_stopping_refuses_new_requests_and_ends_with_the_last_answer(opened: Opened) -> None:
    opened.receive(request(1, "test.wait"))
    opened.exchange.stop()
    assert not opened.exchange.is_over
    opened.receive(request(2, "test.echo"))
    [[_, msgid, error, _]] = opened.told()
    assert (msgid, error["name"]) == (2, "stopping")
    opened.finish("done")
    assert opened.exchange.is_over
    answer, last_word = opened.told()
    assert answer == [1, 1, None, "done"]
    assert last_word[2][0]["name"] == "stopping"


def test_an_idle_one_that_stops_is_over_at_once(opened: Opened) -> None:
    opened.exchange.stop()
    assert opened.exchange.is_over
    assert opened.told()[0][2][0]["name"] == "stopping"


def test_a_peer_that_sends_no_more_gets_its_answers_and_no_last_word(opened: Opened) -> None:
    opened.receive(request(1, "test.wait"))
    opened.exchange.input_ended()
    assert not opened.exchange.is_over
    opened.finish("late")
    assert opened.exchange.is_over
    assert opened.told() == [[1, 1, None, "late"]]


def test_the_first_error_is_the_last_word(opened: Opened) -> None:
    opened.exchange.end(Denied("taken away"))
    opened.exchange.end(Stopping("too late to be the reason"))
    assert opened.told()[0][2][0]["message"] == "taken away"


def test_a_message_must_be_whole_in_time(opened: Opened) -> None:
    whole = request(1, "test.echo", value="x" * 1000)
    assert opened.exchange.whole_by is None
    opened.receive(whole + whole[:10], now=100.0)
    within = opened.limits.whole_within
    assert opened.exchange.whole_by == 100.0 + within
    opened.receive(whole[10:20], now=120.0)  # trickling does not put it off
    assert opened.exchange.whole_by == 100.0 + within
    opened.receive(whole[20:] + whole[:5], now=125.0)
    assert opened.exchange.whole_by == 125.0 + within
    opened.exchange.too_slow()
    assert opened.told()[-1][2][0]["name"] == "timed_out"


def test_halves_of_messages_are_counted_for_the_user(opened: Opened) -> None:
    opened.allowance.most_unfinished = 1500
    half = request(1, "test.echo", value="x" * 4000)
    opened.receive(half[:1000])
    assert opened.allowance.unfinished == 1000
    opened.receive(half[1000:2000])
    assert opened.told()[0][2][0]["name"] == "too_many_requests"
    opened.exchange.release()
    assert opened.allowance.unfinished == 0


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xc1", "malformed"),
        (msgpack.packb([0, 1, "m"]), "malformed"),
        (b"\xdd\xff\xff\xff\xff", "too_large"),
        (msgpack.packb([0, 1, "m", [{"value": [0] * (MAX_ITEMS + 1)}]]), "too_large"),
    ],
)
def test_what_is_no_message_ends_it(opened: Opened, data: bytes, name: str) -> None:
    opened.receive(data[:READ_SIZE])
    assert opened.told()[0][2][0]["name"] == name


def test_a_slice_ends_after_some_messages_or_when_others_are_due(opened: Opened) -> None:
    exchange = opened.exchange
    exchange.receive(request(1, "test.echo") * (SLICE + 1), 0.0)
    assert len(exchange.work(0.0)) == SLICE * len(msgpack.packb([1, 1, None, None]))
    assert exchange.has_work
    assert exchange.work(0.0)
    assert not exchange.is_busy
    opened.allowance.is_due = True
    exchange.receive(request(1, "test.echo") * 3, 0.0)
    assert [bool(exchange.work(0.0)) for _ in range(3)] == [True] * 3
    assert not exchange.has_work


def test_a_slice_ends_when_much_would_be_unsent() -> None:
    opened = Opened(Limits(max_unsent=100))
    opened.exchange.receive(request(1, "test.echo", value="x" * 60) * 10, 0.0)
    assert len(opened.exchange.work(0.0)) < 200
    assert opened.exchange.has_work


def test_a_denied_call_ends_the_slice_with_a_pause(opened: Opened) -> None:
    opened.allowance.pause = 0.5
    exchange = opened.exchange
    exchange.receive(request(1, "test.secret") + request(2, "test.echo"), 0.0)
    _, _, error, _ = msgpack.unpackb(exchange.work(0.0))
    assert error["name"] == "denied"
    assert (exchange.take_pause(), exchange.take_pause()) == (0.5, 0.0)
    assert exchange.has_work


def test_an_actor_is_named_by_those_who_are_trusted_only() -> None:
    opened = Opened(may_speak=False)
    opened.receive(msgpack.packb([0, 1, "test.who", [{}, {"actor": "key:ab"}]]))
    [[_, _, error, _]] = opened.told()
    assert (error["name"], opened.allowance.denials) == ("denied", 1)


def test_it_needs_no_event_loop() -> None:
    program = "import sys, whatsappd.rpc.exchange; sys.exit('trio' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
