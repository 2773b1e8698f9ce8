"""The server's end of one connection without a socket: bytes in; calls, and bytes out.

It knows no event loop. `server_connection` moves its bytes, waits where it says so, and runs the
calls that take their time; what they mean, what is refused, and when a connection is over is
decided here:

    open ──> stopping     `stop`: new requests are refused
      │
      ├────> half-closed  `input_ended`: nothing more arrives
      │
      └────> erred        `end`, `too_slow`, bytes that are no MessagePack-RPC, or too many of them

    Stopping and half-closed are over when no call is in flight any more; erred is at once.

A caller's mistake that leaves the stream intact is answered as the error of its request. One that
does not ends the connection, after a notification `error` that holds the error's wire form, since
there may be no msgid to answer. A notification from the peer is a call without an answer; if it
fails, an `error` notification says so too, with the method's name in `data.method`.

Messages are handled in order, in slices, so that a read that brings thousands holds up nobody.
Plain handlers are called at once, which costs no task; what waits is handed out as `WaitingCall`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import msgspec

from whatsappd.errors import (
    Denied,
    Malformed,
    Revoked,
    Stopping,
    TimedOut,
    TooLarge,
    TooManyRequests,
    WhatsappdError,
)
from whatsappd.rpc.handler_errors import answerable
from whatsappd.rpc.limits import Limits
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.wire.frames import MessagePackReader
from whatsappd.wire.rpc import (
    ERROR,
    MAX_MSGID,
    REQUEST,
    RESPONSE,
    Notification,
    Request,
    actor_named,
    pack_error,
    pack_last_word,
    pack_notification,
    parse_message,
)

#: Messages handled before what they produced is sent: a read can bring thousands.
SLICE = 256

_ENCODER = msgspec.msgpack.Encoder()

#: `(call, method, parsed parameters)`; raises Denied when the caller may not do that.
Allow = Callable[[Call, Method, Any], None]
#: Whether that peer may name an actor for its calls.
MaySpeak = Callable[[Peer], bool]


class ExchangeRules(NamedTuple):
    """What all connections of one server share."""

    table: MethodTable
    allow: Allow
    limits: Limits
    may_speak: MaySpeak


class Allowance(Protocol):
    """What the caller's user may hold on all its connections together (`user_shares.Share`)."""

    def take_unfinished(self, size: int) -> None:
        """Hold bytes of a message that is not whole yet. Raises TooManyRequests."""

    def give_unfinished(self, size: int) -> None: ...

    def take_call(self) -> None:
        """Have one more call that waits. Raises TooManyRequests."""

    def give_call(self) -> None: ...

    def denied(self, now: float) -> float:
        """Count a denied call; for how many seconds to read nothing more."""
        ...

    def work(self, seconds: float) -> bool:
        """Count work that was done; whether it is time to let others go on."""
        ...


class WaitingCall(NamedTuple):
    """A call with an async handler. Run it, pass on its result or error, then call `finished`.

    `msgid` is None for a notification, which has no answer.
    """

    method: Method
    call: Call
    arguments: Any
    msgid: int | None


class ServerExchange:
    """The protocol of one connection: takes the peer's bytes, gives calls and answers.

    Args:
        call: who calls, and the connection that handlers are given.
    """

    # Thousands may be open, and the garbage collector walks over all that they hold.
    __slots__ = (
        "_allow",
        "_allowance",
        "_begun",
        "_call",
        "_error",
        "_in_flight",
        "_input_ended",
        "_limits",
        "_may_speak",
        "_now",
        "_pause",
        "_reader",
        "_stopping",
        "_table",
        "_unfinished",
        "_unhandled",
        "_waiting",
    )

    def __init__(self, call: Call, rules: ExchangeRules, allowance: Allowance) -> None:
        self._call = call
        self._table, self._allow, self._limits, self._may_speak = rules
        self._allowance = allowance
        self._reader = MessagePackReader(max_message=self._limits.max_message)
        self._unhandled: list[Any] = []  # messages, the latest first
        self._unfinished = 0  # bytes of a message that is not whole yet
        self._begun = 0.0  # when it began
        self._now = 0.0
        self._pause = 0.0
        self._waiting: list[WaitingCall] = []  # those that nobody runs yet
        self._in_flight = 0
        self._input_ended = False
        self._stopping = False
        self._error: WhatsappdError | None = None

    # --- its life -----------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do but to send `last_word` and close."""
        if self._error is not None:
            return True
        return (self._stopping or self._input_ended) and not self._in_flight

    @property
    def error(self) -> WhatsappdError | None:
        """What the peer did wrong, or what ended the connection."""
        return self._error

    @property
    def last_word(self) -> bytes:
        """What to send before closing; nothing, if the peer has ended it."""
        if self._error is not None:
            return pack_last_word(self._error)
        if self._stopping:
            return pack_last_word(Stopping("the daemon is stopping"))
        return b""

    def end(self, error: WhatsappdError) -> None:
        """Be over, because of `error`. The first one is told."""
        if self._error is None:
            self._error = error

    def stop(self) -> None:
        """Refuse new requests, and be over when those in flight are answered."""
        self._stopping = True

    def input_ended(self) -> None:
        """The peer sends nothing more, and still waits for its answers."""
        self._input_ended = True

    def release(self) -> None:
        """Drop what refers back to the connection, and give back what is held for the peer.

        The garbage collector runs rarely, and each connection has a buffer. Call it when all is
        over.
        """
        del self._call
        self._error = None  # its traceback leads back here
        self._count_unfinished(0)

    # --- bytes in -----------------------------------------------------------------------------

    @property
    def whole_by(self) -> float | None:
        """When the message that has begun must be whole; None: none has begun."""
        return self._begun + self._limits.whole_within if self._unfinished else None

    def too_slow(self) -> None:
        """It is `whole_by`, and nothing more has come."""
        self.end(TimedOut(f"a message was not whole within {self._limits.whole_within:g} s"))

    def receive(self, data: bytes, now: float) -> None:
        """Take what has arrived; `work` handles it.

        Args:
            data: at most READ_SIZE bytes.
            now: seconds of a clock that never goes back.
        """
        self._now = now
        reader = self._reader
        try:
            values = reader.feed(data)
            if values:
                self._begun = now
            self._count_unfinished(reader.unfinished)
        except (Malformed, TooLarge, TooManyRequests) as error:
            self.end(error)
            return
        values.reverse()
        self._unhandled = values

    def _count_unfinished(self, size: int) -> None:
        """Raises TooManyRequests if this user has too many unfinished messages."""
        more = size - self._unfinished
        if more > 0:
            self._allowance.take_unfinished(more)
            if not self._unfinished:
                self._begun = self._now
        elif more < 0:
            self._allowance.give_unfinished(-more)
        self._unfinished = size

    # --- work ---------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether anything is left to do before more is read."""
        return bool(self._unhandled or self._waiting or self._pause)

    @property
    def has_work(self) -> bool:
        """Whether messages wait to be handled."""
        return bool(self._unhandled)

    def work(self, now: float) -> bytes:
        """Handle messages until a slice is over; their answers.

        If it `is_busy` afterwards: run `take_calls`, wait for `take_pause`, and let others go on
        before this is called again, which it must be while it `has_work`.
        """
        self._now = now
        unhandled, most = self._unhandled, self._limits.max_unsent
        next_one, answer_to, is_due_after = unhandled.pop, self._answer_to, self._allowance.work
        answers: list[bytes] = []
        produced = handled = 0
        began = perf_counter()
        try:
            while unhandled:
                answer = answer_to(next_one())
                if answer is not None:
                    answers.append(answer)
                    produced += len(answer)
                handled += 1
                ended = perf_counter()
                is_due = is_due_after(ended - began)
                began = ended
                if is_due or self._pause or handled == SLICE or produced > most:
                    break
        except Malformed as error:
            unhandled.clear()
            self.end(error)
        return b"".join(answers)

    def take_calls(self) -> list[WaitingCall]:
        """Those to be run now; each exactly once."""
        if not self._waiting:
            return []
        waiting, self._waiting = self._waiting, []
        return waiting

    def take_pause(self) -> float:
        """Seconds to read and handle nothing, for calls that were denied again and again."""
        pause, self._pause = self._pause, 0.0
        return pause

    def _answer_to(self, value: Any) -> bytes | None:
        # Nearly every message is a request without surprises: 2 us less than parse_message.
        if type(value) is list and len(value) == 4:
            kind, msgid, name, params = value
            if (
                type(kind) is int
                and kind == REQUEST
                and type(msgid) is int
                and 0 <= msgid <= MAX_MSGID
                and type(name) is str
                and type(params) is list
            ):
                return self._answer(msgid, name, params)
        message = parse_message(value)
        if isinstance(message, Request):
            return self._answer(*message)
        if isinstance(message, Notification):
            return self._obey(message)
        raise Malformed("a response, although the daemon asks nothing")

    def _answer(self, msgid: int, name: str, params: Any) -> bytes | None:
        """The packed response, or None if it comes later."""
        began = perf_counter()
        try:
            method = self._find(name)
            call = self._call
            if len(params) == 2:
                call = self._call_for(params)
                params = params[:1]
            arguments = method.parse(params)
            self._allow(call, method, arguments)
            if not method.is_async:
                answer = self._pack(msgid, method.handler(call, arguments))
                method.tally.took(perf_counter() - began)
                return answer
            self._start(WaitingCall(method, call, arguments, msgid))
        except Exception as error:  # noqa: BLE001 - a handler's error ends only its request
            return pack_error(msgid, self._failed(name, error, perf_counter() - began))
        return None

    def _obey(self, notification: Notification) -> bytes | None:
        name, params = notification
        began = perf_counter()
        try:
            method = self._find(name)
            arguments = method.parse(params)
            self._allow(self._call, method, arguments)
            if method.is_async:
                self._start(WaitingCall(method, self._call, arguments, None))
            else:
                method.handler(self._call, arguments)
                method.tally.took(perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - as above
            return _pack_failed(name, self._failed(name, error, perf_counter() - began))
        return None

    def _find(self, name: str) -> Method:
        if self._stopping:
            raise Stopping("the daemon is stopping: try again when it runs")
        method = self._table.find(name)
        if method is None:
            raise self._table.unknown(name)
        return method

    def _call_for(self, params: list[Any]) -> Call:
        actor = actor_named(params)
        peer, connection, _ = self._call
        if not self._may_speak(peer):
            raise Denied("this user may call for itself only, not in the name of an actor")
        return Call(peer, connection, actor)

    def _start(self, waiting: WaitingCall) -> None:
        if self._in_flight >= self._limits.max_in_flight:
            raise TooManyRequests(
                f"{self._in_flight} requests of this connection wait for their answer: "
                "read some before sending more",
                limit=self._limits.max_in_flight,
            )
        self._allowance.take_call()
        self._in_flight += 1
        self._waiting.append(waiting)

    # --- what came of a call that waited ------------------------------------------------------

    def answer(self, waiting: WaitingCall, result: Any, seconds: float) -> bytes | None:
        """What to send for its `result`, after `seconds`; None: nothing."""
        try:
            packed = None if waiting.msgid is None else self._pack(waiting.msgid, result)
        except Exception as error:  # noqa: BLE001 - a result that cannot be packed ends its request
            return self.fail(waiting, error, seconds, self._now)
        waiting.method.tally.took(seconds)
        return packed

    def fail(
        self, waiting: WaitingCall, error: Exception, seconds: float, now: float
    ) -> bytes | None:
        """What to send for an error that its handler raised, after `seconds`."""
        self._now = now
        told = self._failed(waiting.method.name, error, seconds)
        if waiting.msgid is None:
            return _pack_failed(waiting.method.name, told)
        return pack_error(waiting.msgid, told)

    def revoked(self, waiting: WaitingCall) -> bytes | None:
        """What to send for a call that was cancelled because its actor lost the right to it."""
        if waiting.msgid is None:
            return None
        error = Revoked("the API key was revoked while its call was under way")
        return pack_error(waiting.msgid, error)

    def finished(self) -> None:
        """A call that waited has ended in some way, and its answer was taken."""
        self._allowance.give_call()
        self._in_flight -= 1

    def _failed(self, name: str, error: Exception, seconds: float) -> WhatsappdError:
        """Count a call that failed; what to tell its caller."""
        told = answerable(error, doing=name)
        tally = self._table.tally(name)
        tally.took(seconds)
        tally.failed(told.name)
        if isinstance(told, Denied):
            self._pause = self._allowance.denied(self._now)
        return told

    def _pack(self, msgid: int, result: Any) -> bytes:
        # Structures go into the bytes as they are: made maps first, a page took twice as long.
        packed = _ENCODER.encode((RESPONSE, msgid, None, result))
        if len(packed) > self._limits.max_message:
            raise TooLarge(
                f"the answer exceeds {self._limits.max_message} bytes: ask for less at a time",
                limit=self._limits.max_message,
            )
        return packed


def _pack_failed(method: str, error: WhatsappdError) -> bytes:
    told = error.as_wire()
    return pack_notification(ERROR, {**told, "data": {**told["data"], "method": method}})
