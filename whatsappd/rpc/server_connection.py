"""One connection of the server: bytes in, answers out.

Its life, which `server` starts and nobody else touches:

    reading ──> closing ──> closed
       │           └ what is unsent leaves, within a deadline
       └ the peer hung up, reads nothing any more, or lost its rights: everything is cancelled at
         once, and what is unsent is dropped

A peer that closes its sending side only, and a server that stops, let the requests in flight
finish before `closing`, also within a deadline; a peer that errs does not.

Everything that one read brought is handled, and answered in one send; the wait for the next read
is the checkpoint that lets other connections have their turn. Plain handlers cost no task. When the
connections of one user have worked for a while, they let others go on (`rpc.user_shares`). A peer
whose calls are denied again and again is read from more and more slowly.

A caller's mistake that leaves the stream intact is answered as the error of its request. One that
does not (bytes that are no MessagePack, a message that is too large or no MessagePack-RPC) ends
the connection, after a notification `error` that holds the error's wire form, since there may be
no msgid to answer. A notification from the peer is a call without an answer; if it fails, an
`error` notification says so too, with the method's name in `data.method`.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from typing import Any, NamedTuple

import structlog
import trio

from whatsappd.api.declaration import plain
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
from whatsappd.rpc.socket_writer import SocketWriter
from whatsappd.rpc.user_shares import Share, Shares
from whatsappd.wire.frames import READ_SIZE, MessagePackReader
from whatsappd.wire.rpc import (
    ERROR,
    MAX_MSGID,
    REQUEST,
    Notification,
    Request,
    actor_named,
    pack_error,
    pack_last_word,
    pack_notification,
    pack_result,
    parse_message,
)

log = structlog.get_logger()

#: Messages handled before what they produced is sent: a read can bring thousands.
SLICE = 256

#: `(call, method, parsed parameters)`; raises Denied when the caller may not do that.
Allow = Callable[[Call, Method, Any], None]
#: Whether that peer may name an actor for its calls.
MaySpeak = Callable[[Peer], bool]


class Service(NamedTuple):
    """What every connection of one server has in common."""

    table: MethodTable
    allow: Allow
    limits: Limits
    may_speak: MaySpeak
    #: Asked for each new connection; raises Denied.
    admit: Callable[[Peer], None]
    shares: Shares


class ServerConnection:
    """A connected peer. Handlers see it as `method.Notifier`."""

    # Thousands may be open, and the garbage collector walks over all that they hold.
    __slots__ = (
        "_acting",
        "_actors",
        "_allow",
        "_begun",
        "_call",
        "_closed",
        "_frames",
        "_idle",
        "_in_flight",
        "_limits",
        "_may_speak",
        "_nursery",
        "_output",
        "_pause",
        "_peer",
        "_reading",
        "_share",
        "_shares",
        "_sock",
        "_stopping",
        "_table",
        "_unfinished",
    )

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        share: Share,
        nursery: trio.Nursery,
        service: Service,
    ) -> None:
        self._sock = sock
        self._peer = peer
        self._share = share
        self._shares = service.shares
        self._nursery = nursery
        self._table = service.table
        self._allow = service.allow
        self._may_speak = service.may_speak
        limits = self._limits = service.limits
        self._call = Call(peer, self)
        self._frames = MessagePackReader(max_message=limits.max_message)
        self._output = SocketWriter(
            sock,
            nursery,
            limit=limits.max_unsent,
            stalled_after=limits.send_stalled_after,
            on_broken=self._lost,
            places=service.shares.unsent,
            holder=share.holder,
        )
        self._unfinished = 0  # bytes of a message that is not whole yet
        self._begun = 0.0  # when it began
        self._pause = 0.0  # seconds to read nothing, for calls that were denied
        self._acting: dict[trio.CancelScope, str] = {}  # calls in flight, by the actor's name
        self._actors: set[str] = set()  # whose own connection it is
        self._reading = trio.CancelScope()
        self._in_flight = 0
        self._idle: trio.Event | None = None  # made by whoever waits for none to be in flight
        self._stopping = False
        self._closed = False

    @property
    def peer(self) -> Peer:
        return self._peer

    @property
    def closed(self) -> bool:
        return self._closed or self._output.broken

    # --- what handlers do with it -------------------------------------------------------------

    def start_soon(self, task: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """See `method.Notifier`. On a closed connection nothing is started."""
        if not self.closed:
            self._nursery.start_soon(self._run_task, task, arguments)

    def bind_to(self, actor: str) -> None:
        """See `method.Notifier`."""
        self._actors.add(actor)

    async def notify(self, method: str, arguments: dict[str, Any]) -> None:
        await self.notify_packed(pack_notification(method, arguments))

    async def notify_packed(self, packed: bytes) -> None:
        # Always a checkpoint, so that a long replay cannot starve other connections.
        await trio.lowlevel.checkpoint()
        await self._output.room()
        self._output.write(packed)

    def offer_packed(self, packed: bytes) -> bool:
        output = self._output
        if output.broken or output.full:
            return False
        output.write(packed)
        return True

    async def _run_task(
        self, task: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]
    ) -> None:
        try:
            await task(*arguments)
        except Exception as error:  # noqa: BLE001 - a connection's error ends only its connection
            if self.closed:
                return  # most likely from notify: the peer is gone, and the task's reason with it
            self._tell(answerable(error, doing=getattr(task, "__qualname__", repr(task))))
            self._reading.cancel()

    # --- its life -----------------------------------------------------------------------------

    async def serve(self) -> None:
        """Answer requests until the peer leaves or errs, or `stop` was called and all is done."""
        with self._reading:
            try:
                await self._read()
            except trio.BrokenResourceError as error:
                self._lost(str(error))
        if self._stopping:
            self._tell(Stopping("the daemon is stopping"))
        with trio.move_on_after(self._limits.close_within):
            await self._output.drained()
        self._closed = True
        self._nursery.cancel_scope.cancel()

    def end(self, error: WhatsappdError) -> None:
        """Close at once: what is in flight is cancelled, and what waits to be sent is dropped.

        The peer is told `error`, unless a part of a message is already on its way to it.
        """
        if self.closed:
            return
        if not self._output.unsent:
            self._tell(error)
        self._closed = True
        self._output.close()
        with suppress(OSError):  # it may have hung up at this moment
            self._sock.shutdown(socket.SHUT_RDWR)
        self._nursery.cancel_scope.cancel()

    def end_actor(self, actor: str, error: WhatsappdError) -> int:
        """See `server.RpcServer.end_actor`."""
        if actor in self._actors:
            self.end(error)
            return 1
        ended = [scope for scope, whose in self._acting.items() if whose == actor]
        for scope in ended:
            scope.cancel()
        return len(ended)

    def stop(self) -> None:
        """Refuse new requests, and close when those in flight are answered."""
        if self._stopping:
            return
        self._stopping = True
        if not self._in_flight:
            self._reading.cancel()

    def release(self) -> None:
        """Drop what refers back to this connection, so that it is freed without the garbage
        collector: that runs rarely, and each connection has a buffer. Call it when all is over."""
        del self._call
        self._output.close()
        self._count_unfinished(0)

    def _lost(self, reason: str) -> None:
        if not self._closed:
            log.debug("rpc_peer_lost", peer_pid=self._peer.pid, reason=reason)
        self._nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        """Read and answer until the peer sends no more, or errs.

        Raises:
            trio.BrokenResourceError: the peer is gone altogether.
        """
        sock, frames, output = self._sock, self._frames, self._output
        while True:
            if not await self._readable():
                self._tell(
                    TimedOut(f"a message was not whole within {self._limits.whole_within:g} s")
                )
                return
            try:
                data = sock.recv(READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(error.strerror) from error
            if not data:
                if _hung_up(sock):
                    raise trio.BrokenResourceError("it hung up")
                await self._answered()
                return
            try:
                values = frames.feed(data)
                if values:
                    self._begun = trio.current_time()
                self._count_unfinished(frames.unfinished)
                await self._handle(values)
            except (Malformed, TooLarge, TooManyRequests) as error:
                log.debug("rpc_bad_message", peer_pid=self._peer.pid, reason=error.message)
                self._tell(error)
                return
            if output.full:
                await output.room()

    async def _readable(self) -> bool:
        """Wait until there is something to read; False: a message has not become whole in time."""
        if not self._unfinished:
            await trio.lowlevel.wait_readable(self._sock)
            return True
        with trio.move_on_at(self._begun + self._limits.whole_within):
            await trio.lowlevel.wait_readable(self._sock)
            return True
        return False

    def _count_unfinished(self, size: int) -> None:
        """Raises TooManyRequests if this user has too many unfinished messages."""
        more = size - self._unfinished
        if more > 0:
            self._shares.unfinished.take(self._share.holder, more)
            if not self._unfinished:
                self._begun = trio.current_time()
        elif more < 0:
            self._shares.unfinished.give(self._share.holder, -more)
        self._unfinished = size

    async def _answered(self) -> None:
        """Wait until no request is in flight any more, or their peer has waited long enough."""
        if self._in_flight:
            self._idle = trio.Event()
            with trio.move_on_after(self._limits.half_closed_for):
                await self._idle.wait()

    def _tell(self, error: WhatsappdError) -> None:
        self._output.write(pack_last_word(error))

    # --- requests -----------------------------------------------------------------------------

    async def _handle(self, values: list[Any]) -> None:
        """Handle messages in order; a checkpoint only after some work, or when output is full.

        Raises:
            Malformed: a value is no request or notification. Those before it are answered.
        """
        share = self._share
        if share.is_due:
            await share.turn()
        answers: list[bytes] = []
        produced = 0
        began = perf_counter()
        try:
            for number, value in enumerate(values, 1):
                answer = self._answer_to(value)
                if answer is not None:
                    answers.append(answer)
                    produced += len(answer)
                now = perf_counter()
                is_due = share.work(now - began)
                began = now
                if (
                    is_due
                    or self._pause
                    or number % SLICE == 0
                    or produced > self._limits.max_unsent
                ):
                    self._output.write(b"".join(answers))
                    answers.clear()
                    produced = 0
                    if self._pause:
                        pause, self._pause = self._pause, 0.0
                        await trio.sleep(pause)
                    await share.turn()
                    await self._output.room()
                    began = perf_counter()
                    if self._closed:
                        return
        finally:
            if answers:
                self._output.write(b"".join(answers))

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
        """The packed response, or None if a task will send it."""
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
            self._start(method, call, arguments, msgid)
        except Exception as error:  # noqa: BLE001 - a handler's error ends only its request
            return pack_error(msgid, self._failed(name, error, began))
        return None

    def _failed(self, name: str, error: Exception, began: float) -> WhatsappdError:
        """Count a call that failed; what to tell its caller."""
        told = answerable(error, doing=name)
        tally = self._table.tally(name)
        tally.took(perf_counter() - began)
        tally.failed(told.name)
        if isinstance(told, Denied):
            self._pause = self._shares.denied(self._share, trio.current_time())
        return told

    def _obey(self, notification: Notification) -> bytes | None:
        name, params = notification
        began = perf_counter()
        try:
            method = self._find(name)
            arguments = method.parse(params)
            self._allow(self._call, method, arguments)
            if method.is_async:
                self._start(method, self._call, arguments, None)
            else:
                method.handler(self._call, arguments)
                method.tally.took(perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - as above
            return _pack_failed(name, self._failed(name, error, began))
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
        if not self._may_speak(self._peer):
            raise Denied("this user may call for itself only, not in the name of an actor")
        return Call(self._peer, self, actor)

    def _start(self, method: Method, call: Call, arguments: Any, msgid: int | None) -> None:
        if self._in_flight >= self._limits.max_in_flight:
            raise TooManyRequests(
                f"{self._in_flight} requests of this connection wait for their answer: "
                "read some before sending more",
                limit=self._limits.max_in_flight,
            )
        self._shares.calls.take(self._share.holder)
        self._in_flight += 1
        self._nursery.start_soon(self._run_method, method, call, arguments, msgid, name=method.name)

    async def _run_method(
        self, method: Method, call: Call, arguments: Any, msgid: int | None
    ) -> None:
        try:
            if call.actor is None:
                answer = await self._answer_later(method, call, arguments, msgid)
            else:
                answer = await self._answer_actor(method, call, call.actor, arguments, msgid)
            if answer is not None and not self.closed:
                # At once, so that it precedes what a subscription of this handler sends. The place
                # in flight is held until there is room, so answers do not pile up.
                self._output.write(answer)
                await self._output.room()
        except trio.BrokenResourceError:
            pass  # the peer vanished: nobody is left to answer
        finally:
            self._shares.calls.give(self._share.holder)
            self._in_flight -= 1
            if not self._in_flight:
                if self._idle is not None:
                    self._idle.set()
                if self._stopping:
                    self._reading.cancel()

    async def _answer_later(
        self, method: Method, call: Call, arguments: Any, msgid: int | None
    ) -> bytes | None:
        """The packed answer of an async handler; None: nothing is to be told."""
        began = perf_counter()
        try:
            result = await method.handler(call, arguments)
            answer = None if msgid is None else self._pack(msgid, result)
            method.tally.took(perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - a handler's error ends only its request
            told = self._failed(method.name, error, began)
            return _pack_failed(method.name, told) if msgid is None else pack_error(msgid, told)
        return answer

    async def _answer_actor(
        self, method: Method, call: Call, actor: str, arguments: Any, msgid: int | None
    ) -> bytes | None:
        """`_answer_later`, for an actor whose rights may end meanwhile (`end_actor`)."""
        with trio.CancelScope() as scope:
            self._acting[scope] = actor
            try:
                return await self._answer_later(method, call, arguments, msgid)
            finally:
                del self._acting[scope]
        if msgid is None:
            return None
        return pack_error(msgid, Revoked("the API key was revoked while its call was under way"))

    def _pack(self, msgid: int, result: Any) -> bytes:
        try:
            packed = pack_result(msgid, plain(result))
        except Malformed as error:
            raise TypeError(f"the handler's result {error}") from error  # ours, not the caller's
        if len(packed) > self._limits.max_message:
            raise TooLarge(
                f"the answer exceeds {self._limits.max_message} bytes: ask for less at a time",
                limit=self._limits.max_message,
            )
        return packed


def _pack_failed(method: str, error: WhatsappdError) -> bytes:
    told = error.as_wire()
    return pack_notification(ERROR, {**told, "data": {**told["data"], "method": method}})


def _hung_up(sock: socket.socket) -> bool:
    """Whether a peer that sends no more has closed altogether, rather than its sending side only.

    `printf … | nc -U` closes its sending side and still waits for the answer; a process that died
    does not. Linux tells the two apart by POLLHUP (see unix_poll in net/unix/af_unix.c).
    """
    poll = select.poll()
    poll.register(sock, 0)
    return any(flags & select.POLLHUP for _, flags in poll.poll(0))
