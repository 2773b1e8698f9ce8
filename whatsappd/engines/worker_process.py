"""The daemon's side of one worker process: its channel, its output, its end."""

from __future__ import annotations

import math
import os
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, cast

import structlog
import trio

from whatsappd.clock import steady_ms
from whatsappd.confinement.resolver import resolver_file
from whatsappd.confinement.seccomp import RefusedCall
from whatsappd.engines.child_output import OutputWatch, PlainOutput, log_output
from whatsappd.engines.child_process import ChildProcess, ExitStatus, ProcessView
from whatsappd.engines.confined import Confined
from whatsappd.engines.decode import WorkerEvent, decode_answer, decode_event, reason_in_error
from whatsappd.engines.port import OnEvents, OnRefusedCall, WhatsAppAccess
from whatsappd.engines.protocol import (
    METHODS,
    TAKEN,
    AddressesFound,
    AskHealth,
    ClientHealth,
    LogOutDevice,
    LookUpAddresses,
    MessageSent,
    OpenClient,
    SendContent,
    SendFate,
    SendRefusal,
    StopClient,
    WorkerAnswer,
    WorkerMethod,
    WorkerRequest,
    as_map,
)
from whatsappd.engines.refused_calls import answer_refused
from whatsappd.errors import (
    InvalidParams,
    Malformed,
    TimedOut,
    TooLarge,
    WhatsappdError,
    WorkerFailed,
    WorkerGone,
)
from whatsappd.model.content import Sendable
from whatsappd.rules.bounds import WORKER_NEWS, Pace
from whatsappd.rules.log_throttle import is_milestone
from whatsappd.wire.frames import READ_SIZE, MessagePackReader
from whatsappd.wire.rpc import (
    MAX_MSGID,
    Notification,
    Response,
    named_arguments,
    pack_notification,
    pack_request,
    parse_message,
)

log = structlog.get_logger()

#: Inbound events that a worker keeps at the most, beside those that are on their way.
CONFIRM_EVERY = 32
#: How long an ended process's output may stay open: something it started may hold it for ever.
_DRAIN_DEADLINE = 1.0
#: Larger arguments of refused system calls are addresses, and tell nothing but where things are.
_LARGEST_SHOWN = 2**32
#: Seconds for a worker whose channel was closed: `Client.drain` takes one, then it saves and ends.
_SAVE_WITHIN = 2.5


class SpawnedProcess(NamedTuple):
    """A worker just forked, and the daemon's ends of what it holds.

    `view`: what the kernel tells about it; None: nothing. `listener`: of its refused system calls
    (`confinement.seccomp`); None: they are not counted. `watch`: knows what it prints.
    """

    process: ChildProcess
    channel: socket.socket
    output: int
    confined: Confined = Confined()
    view: ProcessView | None = None
    listener: int | None = None
    watch: OutputWatch = PlainOutput()


class WorkerProcess:
    """An `engines.port.EngineWorker`, over the protocol of `engines.protocol`."""

    def __init__(
        self,
        company: str,
        spawned: SpawnedProcess,
        *,
        access: WhatsAppAccess,
        on_refused_call: OnRefusedCall,
    ) -> None:
        self.company = company
        self.pid = spawned.process.pid
        self.confined = spawned.confined
        #: The resolver's file that it can read; None: any (see `confinement.resolver`).
        self.resolver = resolver_file() if spawned.confined.landlock else None
        #: What the kernel tells about the process; None: nothing.
        self.view = spawned.view
        #: System calls that it was refused, by name.
        self.refused_calls: Counter[str] = Counter()
        self._access = access
        self._on_refused_call = on_refused_call
        self._listener = spawned.listener
        self._refusing = trio.CancelScope()
        self.started_at_ms = steady_ms()
        self._process = spawned.process
        self._output = spawned.output
        self._watch = spawned.watch
        self._channel = trio.SocketStream(trio.socket.from_stdlib_socket(spawned.channel))
        self._incoming = spawned.channel  # the same one; see `_receive`
        self._send_lock = trio.Lock()
        self._waiting: dict[int, _AwaitedAnswer] = {}
        self._forgotten: set[int] = set()  # requests whose answers nobody waits for any more
        self._news = Pace(WORKER_NEWS)
        self._next_msgid = 0
        self._closed = False
        #: Numbers of its inbound events: the last on disk, and the last that it knows to be.
        self._taken = 0
        self._confirmed = 0
        #: What it said that no worker says, if that is why it was ended.
        self.broken: str | None = None
        #: Whether what it brought is being taken just now: its answers wait behind that, so their
        #: lateness is not its own.
        self.is_held_up = False
        self._exited = trio.Event()  # only `run` waits for the process itself

    async def run(self, on_events: OnEvents) -> ExitStatus:
        """Read events and answers until the process has ended; how it ended.

        `on_events` gets all events that one read brought, in order; the next read waits for it, so
        a slow one slows the worker down. Cancelled, or after an error of `on_events`, it ends the
        process, which has a moment to save what it brought and nobody took.
        """
        tags = {"company": self.company, "worker_pid": self.pid}
        try:
            async with trio.open_nursery() as nursery:
                output_scope = await nursery.start(self._log_output, tags)
                nursery.start_soon(self._read_channel, on_events)
                nursery.start_soon(self._answer_refused)
                status = await self._process.wait()
                self._exited.set()
                self._refusing.cancel()
                # Its channel is read to the end, however long taking the events takes.
                output_scope.deadline = trio.current_time() + _DRAIN_DEADLINE
        except BaseException:
            with trio.CancelScope(shield=True):
                # To the worker it is as if the daemon had ended: it saves, and leaves.
                await trio.aclose_forcefully(self._channel)
                with trio.move_on_after(_SAVE_WITHIN):
                    await self._process.wait()
                self.kill()
                await self._process.wait()
            raise
        finally:
            self._closed = True
            self._fail_waiting()
            self._exited.set()
            with trio.move_on_after(0, shield=True):
                await self._channel.aclose()
            if self.view is not None:
                self.view.close()
            if self._listener is not None:
                trio.lowlevel.notify_closing(self._listener)
                os.close(self._listener)
        return status

    async def open(self, *, taken: int, log_level: str) -> None:
        access = self._access
        await self._call(OpenClient(taken, log_level, access.proxy, access.noise_root))

    async def send(
        self,
        to: str,
        content: Sendable,
        secret: bytes,
        *,
        patience_s: float = math.inf,
        slow_s: float = math.inf,
        if_slow: Callable[[], Awaitable[object]] | None = None,
    ) -> MessageSent | SendRefusal | None:
        request = SendContent(to, content, secret)
        try:
            answer = await self._call(
                request, patience_s=patience_s, slow_s=slow_s, if_slow=if_slow
            )
        except WorkerFailed as error:  # it says why, and not what became of the message
            words = f"nobody knows whether it was sent ({error.message})"
            return SendRefusal(SendFate.UNKNOWN, words)
        return cast("MessageSent | SendRefusal | None", answer)

    async def look_up(self, address: str) -> AddressesFound:
        return cast("AddressesFound", await self._call(LookUpAddresses([address])))

    async def health(self) -> ClientHealth:
        return cast("ClientHealth", await self._call(AskHealth()))

    async def log_out(self) -> None:
        await self._call(LogOutDevice())

    async def _call(
        self,
        request: WorkerRequest,
        *,
        patience_s: float = math.inf,
        slow_s: float = math.inf,
        if_slow: Callable[[], Awaitable[object]] | None = None,
    ) -> WorkerAnswer | None:
        """Ask the worker; its answer. Cancellation forgets the answer, not the work.

        Args:
            patience_s: its time to answer. While the daemon's own store holds up what the worker
                brings, it is waited for longer: ending it would lose that.
            if_slow: called when there is no answer after `slow_s`. If it returns before there is
                one, the answer is forgotten, and the result is None.

        Raises:
            WorkerFailed: the worker refused, with its reason.
            WorkerGone: it went away before it answered; whether it acted is unknown.
            TimedOut: it did not answer in time.
        """
        if self._closed:
            raise WorkerGone("the worker is gone")
        method = METHODS[type(request)]
        msgid = self._next_msgid
        self._next_msgid = (msgid + 1) & MAX_MSGID
        answer = self._waiting[msgid] = _AwaitedAnswer()
        try:
            async with self._send_lock:
                packed = pack_request(msgid, method, as_map(request))
                await self._channel.send_all(self._confirmation() + packed)
            wait = partial(self._wait_for, answer, method, patience_s)
            if if_slow is not None:
                with trio.move_on_after(slow_s):
                    await answer.arrived.wait()
                if not answer.arrived.is_set():
                    await _first_of(wait, if_slow)
                if not answer.arrived.is_set():
                    return None
            await wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise WorkerGone("the worker is gone") from error
        finally:
            self._waiting.pop(msgid, None)
            if answer.response is None:
                self._forgotten.add(msgid)
        if answer.response is None:
            raise WorkerGone("the worker went away before it answered")
        if answer.response.error is not None:
            raise WorkerFailed(reason_in_error(answer.response.error))
        try:
            return decode_answer(method, answer.response.result)
        except Malformed as error:
            self._end_broken(error.message)
            raise WorkerGone("the worker answered what it never should, and is ended") from error

    async def _wait_for(
        self, answer: _AwaitedAnswer, method: WorkerMethod, patience_s: float
    ) -> None:
        while not answer.arrived.is_set():
            with trio.move_on_after(patience_s) as patience:
                await answer.arrived.wait()
            if patience.cancelled_caught and not self.is_held_up:
                raise TimedOut(f"the worker did not answer {method} within {patience_s:g} s")

    @property
    def crash(self) -> str | None:
        return self._watch.crash

    @property
    def is_gone(self) -> bool:
        """Whether its channel has ended; `run` tells how the process did."""
        return self._closed

    async def confirm(self, number: int) -> None:
        """The worker's inbound events up to `number` are on disk.

        It is told with the next call, or when it keeps many for us: what it is not told yet costs
        it memory, and its successor asks the disk. Telling it each time would wake it once more
        for every message.
        """
        self._taken = number
        if number - self._confirmed < CONFIRM_EVERY:
            return
        # From here on it is the worker that we wait for, and one that never reads is hung.
        self.is_held_up = False
        try:
            async with self._send_lock:
                await self._channel.send_all(self._confirmation())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is gone; its successor is told where to go on

    def _confirmation(self) -> bytes:
        """What tells the worker how far its events are on disk, if there is news."""
        if self._taken == self._confirmed:
            return b""
        self._confirmed = self._taken
        return pack_notification(TAKEN, {"number": self._taken})

    async def shut_down(self, grace: float) -> None:
        """Let the client disconnect for at most `grace` seconds, then end the process.

        Closing the channel is what ends it, and makes it save what is not on our disk: it has that
        chance also if our store holds up its answer to the first. The signal is for one that does
        not notice. 0: there is nothing to disconnect or to save.
        """
        if grace > 0:
            with trio.move_on_after(grace):
                try:
                    await self._call(StopClient())
                except WhatsappdError as error:
                    log.debug("worker_not_stopped", company=self.company, error=error.message)
            with trio.move_on_after(_SAVE_WITHIN):
                await self._close_channel()
                await self._exited.wait()
        self.kill()

    async def _close_channel(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._send_lock:
                await self._channel.send_eof()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self._process.kill(number)

    async def _log_output(
        self,
        tags: dict[str, Any],
        *,
        task_status: trio.TaskStatus[trio.CancelScope],
    ) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await log_output(self._output, tags, self._watch)

    async def _answer_refused(self) -> None:
        """Refuse the system calls that its filter does not allow, until it has ended."""
        if self._listener is not None:
            with self._refusing:
                await answer_refused(self._listener, self._count_refused)

    def _count_refused(self, refused: RefusedCall) -> None:
        self._on_refused_call(refused.call)
        self.refused_calls[refused.call] += 1
        count = self.refused_calls[refused.call]
        if is_milestone(count):
            log.warning(
                "worker_call_refused",
                company=self.company,
                worker_pid=self.pid,
                call=refused.call,
                arguments=[each if each < _LARGEST_SHOWN else "…" for each in refused.arguments],
                count=count,
            )

    async def _read_channel(self, on_events: OnEvents) -> None:
        reader = MessagePackReader()
        try:
            while data := await self._receive():
                events = [
                    event for value in reader.feed(data) if (event := self._take(value)) is not None
                ]
                if events:
                    self.is_held_up = True
                    await on_events(events)
                    self.is_held_up = False
                    await self._keep_pace(events)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the process ended, or is being ended
        except (Malformed, InvalidParams, TooLarge) as error:
            self._end_broken(error.message)
        finally:
            self._closed = True
            self._fail_waiting()
        if self.broken is not None:
            # What it has not been confirmed lies in its spool, or will in a moment.
            with trio.move_on_after(_SAVE_WITHIN):
                await self._exited.wait()
            self.kill()

    async def _keep_pace(self, events: list[WorkerEvent]) -> None:
        """Read on later if it tells so much of its session that others would have to wait."""
        now, pause = trio.current_time(), 0.0
        for event in events:
            if not event.is_inbound:
                pause = self._news.wait("", now)
        if pause > 0:
            with trio.move_on_after(pause):
                await self._exited.wait()

    def _end_broken(self, reason: str) -> None:
        """Close the channel, both ways: what it writes fails at once, and goes into its spool."""
        if self.broken is None:
            log.error("worker_channel_corrupt", company=self.company, error=reason)
            self.broken = reason
            with suppress(OSError):
                self._incoming.shutdown(socket.SHUT_RDWR)

    async def _receive(self) -> bytes:
        """What the worker brings next; nothing at its end.

        A stream's `receive_some` asks the socket first, which has nothing almost every time.
        """
        while True:
            await trio.lowlevel.wait_readable(self._incoming)
            try:
                return self._incoming.recv(READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(error.strerror) from error

    def _take(self, value: Any) -> WorkerEvent | None:
        match parse_message(value):
            case Response() as response:
                self._take_answer(response)
                return None
            case Notification() as notification:
                return decode_event(named_arguments(notification.params))
        raise Malformed("a worker sent a request")

    def _take_answer(self, response: Response) -> None:
        answer = self._waiting.get(response.msgid)
        if answer is not None and answer.response is None:
            answer.response = response
            answer.arrived.set()
        elif response.msgid in self._forgotten:
            self._forgotten.discard(response.msgid)
        else:
            # Ten thousand of them come with one read, and take the time of everybody else.
            raise Malformed("a worker answered what nobody asked")

    def _fail_waiting(self) -> None:
        for answer in self._waiting.values():
            answer.arrived.set()


class _AwaitedAnswer:
    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.response: Response | None = None


async def _first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Run all until one returns or raises, and raise what that one raised."""
    raised: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def run(wait: Callable[[], Awaitable[object]]) -> None:
            try:
                await wait()
            except Exception as error:  # noqa: BLE001 -- raised again below, out of the nursery
                raised.append(error)
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(run, wait)
    if raised:
        raise raised[0]
