"""One connection of the server, on trio: moves the exchange's bytes, and runs its calls.

What the bytes mean, and when it is over, `exchange` decides. `server` starts a connection, and
nobody else touches it:

    reading ──> closing ──> closed
       │           └ what is unsent leaves, within a deadline
       └ the peer hung up, reads nothing any more, or lost its rights: everything is cancelled at
         once, and what is unsent is dropped

A peer that closes its sending side only, and a server that stops, let the requests in flight
finish before `closing`, also within a deadline; a peer that errs does not.

Everything that one read brought is handled, and answered in one send; the wait for the next read
is the checkpoint that lets other connections have their turn. When the connections of one user have
worked for a while, they let others go on (`rpc.user_shares`). A peer whose calls are denied again
and again is read from more and more slowly.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

import structlog
import trio

from whatsappd.errors import WhatsappdError
from whatsappd.rpc.exchange import ExchangeRules, ServerExchange, WaitingCall
from whatsappd.rpc.handler_errors import answerable
from whatsappd.rpc.method import Call
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.rpc.socket_writer import SocketWriter
from whatsappd.rpc.user_shares import Share
from whatsappd.wire.frames import READ_SIZE
from whatsappd.wire.rpc import pack_last_word, pack_notification

log = structlog.get_logger()


class ServerConnection:
    """A connected peer. Handlers see it as `method.Notifier`."""

    # Thousands may be open, and the garbage collector walks over all that they hold.
    __slots__ = (
        "_acting",
        "_actors",
        "_closed",
        "_exchange",
        "_limits",
        "_nursery",
        "_peer",
        "_reading",
        "_share",
        "_sock",
        "_writer",
    )

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        share: Share,
        nursery: trio.Nursery,
        rules: ExchangeRules,
    ) -> None:
        self._sock = sock
        self._peer = peer
        self._share = share
        self._nursery = nursery
        self._limits = rules.limits
        self._exchange = ServerExchange(Call(peer, self), rules, share)
        self._writer = SocketWriter(
            sock,
            nursery,
            limit=self._limits.max_unsent,
            stalled_after=self._limits.send_stalled_after,
            on_broken=self._lost,
            places=share.unsent,
            holder=share.holder,
        )
        self._acting: dict[trio.CancelScope, str] = {}  # calls in flight, by the actor's name
        self._actors: set[str] = set()  # whose own connection it is
        self._reading = trio.CancelScope()
        self._closed = False

    @property
    def peer(self) -> Peer:
        return self._peer

    @property
    def closed(self) -> bool:
        return self._closed or self._writer.broken

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
        await self._writer.room()
        self._writer.write(packed)

    def offer_packed(self, packed: bytes) -> bool:
        writer = self._writer
        if writer.broken or writer.full:
            return False
        writer.write(packed)
        return True

    async def _run_task(
        self, task: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]
    ) -> None:
        try:
            await task(*arguments)
        except Exception as error:  # noqa: BLE001 - a connection's error ends only its connection
            if self.closed:
                return  # most likely from notify: the peer is gone, and the task's reason with it
            doing = getattr(task, "__qualname__", repr(task))
            self._exchange.end(answerable(error, doing=doing))
            self._reading.cancel()

    # --- its life -----------------------------------------------------------------------------

    async def serve(self) -> None:
        """Answer requests until the peer leaves or errs, or `stop` was called and all is done."""
        exchange, writer = self._exchange, self._writer
        with self._reading:
            try:
                await self._read()
            except trio.BrokenResourceError as error:
                self._lost(str(error))
        if exchange.error is not None:
            log.debug("rpc_bad_message", peer_pid=self._peer.pid, reason=exchange.error.message)
        if last_word := exchange.last_word:
            writer.write(last_word)
        with trio.move_on_after(self._limits.close_within):
            await writer.drained()
        self._closed = True
        self._nursery.cancel_scope.cancel()

    def end(self, error: WhatsappdError) -> None:
        """Close at once: what is in flight is cancelled, and what waits to be sent is dropped.

        The peer is told `error`, unless a part of a message is already on its way to it.
        """
        if self.closed:
            return
        if not self._writer.unsent:
            self._writer.write(pack_last_word(error))
        self._closed = True
        self._writer.close()
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
        self._exchange.stop()
        self._close_if_over()

    def release(self) -> None:
        """Drop what refers back to this connection, so that it is freed without the garbage
        collector. Call it when all is over."""
        self._exchange.release()
        self._writer.close()

    def _close_if_over(self) -> None:
        if self._exchange.is_over:
            self._reading.cancel()

    def _lost(self, reason: str) -> None:
        if not self._closed:
            log.debug("rpc_peer_lost", peer_pid=self._peer.pid, reason=reason)
        self._nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        """Read and answer until the exchange is over, or the peer has waited long enough.

        Raises:
            trio.BrokenResourceError: the peer is gone altogether.
        """
        sock, exchange, writer, share = self._sock, self._exchange, self._writer, self._share
        while exchange.error is None:
            if exchange.whole_by is None:
                await trio.lowlevel.wait_readable(sock)
            else:
                with trio.move_on_at(exchange.whole_by) as patience:
                    await trio.lowlevel.wait_readable(sock)
                if patience.cancelled_caught:
                    exchange.too_slow()
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
            now = trio.current_time()
            exchange.receive(data, now)
            if share.is_due:
                await share.turn()
            # Mostly one message, and all that there is to do.
            if answers := exchange.work(now):
                writer.write(answers)
            if exchange.is_busy:
                await self._go_on()
            if writer.full:
                await writer.room()

    async def _answered(self) -> None:
        """Wait until no call is in flight any more, or their peer has waited long enough."""
        self._exchange.input_ended()
        if not self._exchange.is_over:
            with trio.move_on_after(self._limits.half_closed_for):
                await trio.sleep_forever()  # until `_close_if_over`

    async def _go_on(self) -> None:
        """Do what is left of a slice, and the slices that are left, each in its turn."""
        exchange, writer = self._exchange, self._writer
        while exchange.is_busy:
            for waiting in exchange.take_calls():
                self._nursery.start_soon(self._run_call, waiting, name=waiting.method.name)
            if pause := exchange.take_pause():
                await trio.sleep(pause)
            if exchange.has_work:
                await self._share.turn()
                await writer.room()
                if self._closed:
                    return
                if answers := exchange.work(trio.current_time()):
                    writer.write(answers)

    # --- calls that wait ----------------------------------------------------------------------

    async def _run_call(self, waiting: WaitingCall) -> None:
        try:
            if waiting.call.actor is None:
                answer = await self._answer_later(waiting)
            else:
                answer = await self._answer_actor(waiting, waiting.call.actor)
            if answer is not None and not self.closed:
                # At once, so that it precedes what a subscription of this handler sends. The place
                # in flight is held until there is room, so answers do not pile up.
                self._writer.write(answer)
                await self._writer.room()
        except trio.BrokenResourceError:
            pass  # the peer vanished: nobody is left to answer
        finally:
            self._exchange.finished()
            self._close_if_over()

    async def _answer_later(self, waiting: WaitingCall) -> bytes | None:
        """The packed answer of an async handler; None: nothing is to be told."""
        began = perf_counter()
        try:
            result = await waiting.method.handler(waiting.call, waiting.arguments)
        except Exception as error:  # noqa: BLE001 - a handler's error ends only its request
            seconds = perf_counter() - began
            return self._exchange.fail(waiting, error, seconds, trio.current_time())
        return self._exchange.answer(waiting, result, perf_counter() - began)

    async def _answer_actor(self, waiting: WaitingCall, actor: str) -> bytes | None:
        """`_answer_later`, for an actor whose rights may end meanwhile (`end_actor`)."""
        with trio.CancelScope() as scope:
            self._acting[scope] = actor
            try:
                return await self._answer_later(waiting)
            finally:
                del self._acting[scope]
        return self._exchange.revoked(waiting)


def _hung_up(sock: socket.socket) -> bool:
    """Whether a peer that sends no more has closed altogether, rather than its sending side only.

    `printf … | nc -U` closes its sending side and still waits for the answer; a process that died
    does not. Linux tells the two apart by POLLHUP (see unix_poll in net/unix/af_unix.c).
    """
    poll = select.poll()
    poll.register(sock, 0)
    return any(flags & select.POLLHUP for _, flags in poll.poll(0))
