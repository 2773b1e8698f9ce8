"""The client for trio programs: the gateway, the demo, and tests.

    async with open_client("/run/whatsappd/whatsappd.sock") as client:
        hello = await client.call("daemon.hello")

Any number of tasks may call at once. What requests, answers and the connection's end mean is
decided by `wire.client_exchange`; this moves its bytes and wakes whoever waits. `whatsappctl` does
that with a blocking socket, because trio costs more start-up time than its whole command.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import outcome
import trio

from whatsappd.errors import Unreachable, WhatsappdError
from whatsappd.rpc.limits import MAX_UNSENT, SEND_STALLED_AFTER
from whatsappd.rpc.socket_writer import SocketWriter
from whatsappd.wire.client_exchange import Answer, ClientExchange, Notice, cannot_connect
from whatsappd.wire.frames import READ_SIZE

#: Notifications held for whoever reads them. When they are full nothing more is read from the
#: daemon, answers included: read them in a task of their own.
NOTIFICATION_BUFFER = 1024
#: Seconds between tries to connect while the daemon has no room for more connections.
BACKLOG_PAUSE = 0.01


class RpcClient:
    """An open connection. Made by `open_client`."""

    def __init__(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        self._sock = sock
        self._exchange = ClientExchange()
        self._writer = SocketWriter(
            sock,
            nursery,
            limit=MAX_UNSENT,
            stalled_after=SEND_STALLED_AFTER,
            on_broken=self._on_broken,
        )
        self._waiting: dict[int, trio.lowlevel.Task] = {}
        self._settled: dict[int, Callable[[], None]] = {}
        self._why = "whatsappd closed the connection"
        self._notices, notifications = trio.open_memory_channel[Notice](NOTIFICATION_BUFFER)
        #: What the daemon notifies, in order; ends when the connection does.
        self.notifications: trio.MemoryReceiveChannel[Notice] = notifications

    @property
    def lost(self) -> WhatsappdError | None:
        """Why the connection ended; None: it has not."""
        return self._exchange.ended

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """Call a method and wait for its result. Cancelling stops the waiting, not the work.

        Raises:
            WhatsappdError: what the daemon answered, by its class in `whatsappd.errors`.
            Unreachable: the connection is lost; whether the call was carried out is unknown.
        """
        return await self.request(method, arguments)

    async def request(
        self,
        method: str,
        arguments: dict[str, Any],
        *,
        actor: str | None = None,
        settled: Callable[[], None] | None = None,
    ) -> Any:
        """As `call`, with the arguments in a map; `actor`: in whose name (see `wire.rpc`).

        Args:
            settled: called exactly once: when the daemon is done with it, when the connection ends,
                or when it was not even sent. If the caller is cancelled, that may be later.

        Raises:
            Denied: also if the daemon does not trust this process to name an actor.
        """
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._writer.full:
                with suppress(trio.BrokenResourceError):  # the exchange says why, just below
                    await self._writer.room()
            msgid, packed = self._exchange.request(method, arguments, actor=actor)
        except BaseException:
            if settled is not None:
                settled()
            raise
        self._waiting[msgid] = trio.lowlevel.current_task()
        if settled is not None:
            self._settled[msgid] = settled
        self._writer.write(packed)

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self._waiting.pop(msgid, None)
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    async def _read(self) -> None:
        """Deliver what arrives until the connection ends; then tell every caller why."""
        try:
            while self._exchange.ended is None:
                await trio.lowlevel.wait_readable(self._sock)
                try:
                    data = self._sock.recv(READ_SIZE)
                except BlockingIOError:
                    continue
                except OSError as error:
                    words = f"the connection to whatsappd is lost: {error.strerror}"
                    self._exchange.end(Unreachable(words))
                    break
                if not data:
                    self._exchange.end(Unreachable(self._why))
                for each in self._exchange.receive(data):
                    if isinstance(each, Answer):
                        self._deliver(each)
                    else:
                        # Whoever read them closed, and wants none; or we gave up.
                        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                            await self._notices.send(each)
        finally:
            self._end(Unreachable("the connection to whatsappd was closed here"))

    def _deliver(self, answer: Answer) -> None:
        task = self._waiting.pop(answer.msgid, None)
        if settled := self._settled.pop(answer.msgid, None):
            settled()
        if task is None:
            return  # its caller was cancelled
        if answer.error is None:
            trio.lowlevel.reschedule(task, outcome.Value(answer.result))
        else:
            trio.lowlevel.reschedule(task, outcome.Error(answer.error))

    def give_up(self, error: WhatsappdError) -> None:
        """Hang up, and fail what is under way with `error`: nobody answers any more."""
        self._end(error)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _end(self, error: WhatsappdError) -> None:
        """Fail whoever waits, with what ended the exchange: `error`, if nothing did before."""
        self._exchange.end(error)
        ended = self._exchange.ended
        assert ended is not None
        waiting, self._waiting = self._waiting, {}
        settled, self._settled = self._settled, {}
        for done in settled.values():
            done()
        for task in waiting.values():
            trio.lowlevel.reschedule(task, outcome.Error(ended.afresh()))
        self._notices.close()

    def _on_broken(self, reason: str) -> None:
        # What the daemon said last can still be read; behind it the reader meets the end.
        self._why = f"the connection to whatsappd is lost: {reason}"
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def open_client(
    path: str | os.PathLike[str], *, connect_within: float = math.inf
) -> AsyncIterator[RpcClient]:
    """Connect to the daemon's socket.

    Args:
        connect_within: seconds to wait for room among the connections that wait for the daemon.

    Raises:
        Unreachable: nobody answers there; the message says what to do.
        Denied: the file permissions keep us out.
    """
    sock = await _connect(os.fspath(path), connect_within)
    failed: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            client = RpcClient(sock, nursery)
            nursery.start_soon(client._read)
            try:
                yield client
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery wraps what the caller's block raises, and is no business of the caller's.
        _, others = group.split(WhatsappdError)
        if others is not None:
            # Whoever is cancelled does not care what else became of the connection.
            group = others
        failed = group if len(group.exceptions) > 1 else group.exceptions[0]
    finally:
        trio.lowlevel.notify_closing(sock)
        sock.close()
    if failed is not None:
        raise failed


async def _connect(path: str, within: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    deadline = trio.current_time() + within
    try:
        while True:
            if trio.current_time() > deadline:
                raise Unreachable(
                    f"whatsappd took no connection at {path} within {within:g} s: it is stopped, "
                    "stuck or overloaded (`systemctl status whatsappd`)",
                    path=path,
                )
            try:
                sock.connect(path)
            except BlockingIOError:
                # The daemon's backlog is full, and the kernel has no event for its having room.
                await trio.sleep(BACKLOG_PAUSE)
            else:
                await trio.lowlevel.checkpoint()
                return sock
    except OSError as error:
        sock.close()
        raise cannot_connect(path, error) from error
    except BaseException:
        sock.close()
        raise
