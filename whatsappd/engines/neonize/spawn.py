"""The daemon's side of the fork server: keeps one running, and asks it for workers.

The daemon itself imports neither neonize nor anything of `worker`: it starts `python -m
whatsappd.engines.neonize.fork.server` and speaks to it over a socket.
"""

from __future__ import annotations

import array
import os
import random
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from whatsappd.engines.child_output import log_output
from whatsappd.engines.child_process import ChildProcess, ProcessView
from whatsappd.engines.confined import AUTO, Confined
from whatsappd.engines.neonize.fork.messages import (
    ANSWER_DESCRIPTORS,
    MAX_PACKET,
    VIEW,
    ForkRequest,
    parse_forked_worker,
    parse_hello,
)
from whatsappd.engines.neonize.library_output import LibraryOutput
from whatsappd.engines.port import EngineStatus
from whatsappd.engines.worker_process import SpawnedProcess
from whatsappd.errors import Malformed, WorkerFailed
from whatsappd.rules.backoff import full_jitter
from whatsappd.wire.frames import pack

log = structlog.get_logger()

_MODULE = "whatsappd.engines.neonize.fork.server"
#: A fork takes 10 ms; a server that needs this long hangs and is replaced.
_ANSWER_DEADLINE = 20.0
#: Importing neonize takes 0.4 s on an idle core.
_READY_DEADLINE = 60.0
_RESTART_BASE_MS = 100
_RESTART_CAP_MS = 10_000


class Confinement(NamedTuple):
    """How workers are to be confined.

    `companies`: where their directories are. `apart`: places whose files they must never read,
    wherever their libraries are. `wanted`: `engines.confined.AUTO`, REQUIRED or OFF.
    """

    companies: Path
    apart: Sequence[Path]
    wanted: str = AUTO


class _Answered(NamedTuple):
    packet: bytes
    descriptors: list[int]


class ForkServer:
    """Runs one fork server at a time; a dead one is replaced, and its workers live on."""

    def __init__(self, *, environment: Mapping[str, str], confinement: Confinement) -> None:
        self._environment = dict(environment)
        self.confinement = confinement
        #: What is in force in the last process that it made, or in itself; None: not known yet.
        self.confined: Confined | None = None
        self._lock = trio.Lock()
        self._control: trio.socket.SocketType | None = None
        self._ready = trio.Event()
        self._process: trio.Process | None = None
        self.restarts = 0
        self.problem: str | None = None  # why preloading failed, if it did

    @property
    def status(self) -> EngineStatus:
        return EngineStatus(
            pid=None if self._process is None else self._process.pid,
            is_ready=self._control is not None,
            restarts=self.restarts,
            problem=self.problem,
            confinement=self.confinement.wanted,
            confined=self.confined,
        )

    async def run(self) -> None:
        """Keep a fork server running until cancelled, then end it."""
        attempt = 0
        while True:
            try:
                was_ready = await self._run_one()
            except OSError as error:  # no memory, no descriptors, no program just now
                log.error("fork_server_not_started", reason=str(error))
                was_ready = False
            self.restarts += 1
            attempt = 0 if was_ready else attempt + 1
            delay_ms = full_jitter(
                attempt, base_ms=_RESTART_BASE_MS, cap_ms=_RESTART_CAP_MS, chance=random.random()
            )
            log.warning("fork_server_ended", restarts=self.restarts, next_try_ms=delay_ms)
            await trio.sleep(delay_ms / 1000)

    async def _run_one(self) -> bool:
        """Start a fork server and stay until it ends; whether it ever became ready.

        Raises:
            OSError: none could be started.
        """
        with ExitStack() as theirs_to_close, ExitStack() as ours_if_it_fails:
            ours, theirs, output, output_writer = _pairs(
                socket.SOCK_SEQPACKET, theirs_to_close, ours_if_it_fails
            )
            process = await trio.lowlevel.open_process(
                [
                    # -P: no code from a working directory.
                    *(sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())),
                    *(str(self.confinement.companies), self.confinement.wanted),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output_writer,
                stderr=output_writer,
                env=self._environment,
            )
            ours_if_it_fails.pop_all()
        self._process = process
        control = trio.socket.from_stdlib_socket(ours)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log_output, output, {"part": "fork_server"}, LibraryOutput())
                nursery.start_soon(self._introduce, control, process)
                await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            was_ready = self._ready.is_set()
            if was_ready:  # whoever waits for one that died early waits for the next one
                self._ready = trio.Event()
            self._control = None
            self._process = None
            control.close()  # the server leaves when its end closes
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await process.wait()
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        return was_ready

    async def _introduce(self, control: trio.socket.SocketType, process: trio.Process) -> None:
        with trio.move_on_after(_READY_DEADLINE):
            try:
                hello = await control.recv(MAX_PACKET)
                if not hello:
                    return  # it ended, which `_run_one` learns
                self.problem, confined = parse_hello(hello)
            except OSError:
                return  # as well
            except Malformed as error:
                log.error("fork_server_channel_corrupt", error=error.message)
                process.kill()
                return
            if self.problem:
                log.warning("fork_server_cannot_preload", reason=self.problem)
            self._take_confined(confined)
            self._control = control
            self._ready.set()
            log.debug("fork_server_ready", pid=process.pid)
            return
        log.error("fork_server_hangs", deadline_s=_READY_DEADLINE)
        process.kill()

    def _take_confined(self, confined: Confined) -> None:
        """Say once what workers are lacking, and again when that changes."""
        if confined == self.confined:
            return
        self.confined = confined
        if confined.lacking:
            log.warning("workers_less_confined", lacking=confined.lacking)
        else:
            log.info("workers_confined", landlock=confined.landlock)

    async def spawn(
        self, company: str, *, directory: Path, ports: Collection[int]
    ) -> SpawnedProcess:
        """Fork a worker for `company`; wait for a fork server if there is none just now.

        Args:
            directory: the company's own, the only one that the worker may write in; it must exist.
            ports: the TCP ports that it may connect to.

        Raises:
            WorkerFailed: no process could be made, or it could not be confined.
        """
        request = ForkRequest(
            company,
            str(directory),
            sorted(ports),
            [str(place) for place in self.confinement.apart],
            self.confinement.wanted,
        )
        async with self._lock:
            with trio.move_on_after(_READY_DEADLINE) as waiting:
                while self._control is None:  # it may have died since it was ready
                    await self._ready.wait()
            if waiting.cancelled_caught:
                raise WorkerFailed(
                    f"no fork server is up after {_READY_DEADLINE:.0f} s; the log has its reasons"
                )
            with ExitStack() as theirs, ExitStack() as ours_if_it_fails:
                try:
                    channel, their_channel, output, output_writer = _pairs(
                        socket.SOCK_STREAM, theirs, ours_if_it_fails
                    )
                except OSError as error:
                    raise WorkerFailed(f"no channel to a worker: {error.strerror}") from error
                # Shielded: an answer that nobody took would be taken for the next request's.
                with trio.CancelScope(shield=True):
                    answer = await self._ask(request, [their_channel.fileno(), output_writer])
                spawned = self._spawned(answer, channel, output)
                ours_if_it_fails.pop_all()
                return spawned

    async def _ask(self, request: ForkRequest, descriptors: list[int]) -> _Answered:
        control = self._control
        assert control is not None
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        answer = _Answered(b"", [])
        try:
            with trio.move_on_after(_ANSWER_DEADLINE) as scope:
                await control.sendmsg([pack(request.as_wire())], [rights])
                answer = await _receive(control)
        except (OSError, trio.ClosedResourceError) as error:
            raise WorkerFailed(f"the fork server went away: {error}") from error
        if scope.cancelled_caught:
            self._kill()
            raise WorkerFailed(f"the fork server did not answer within {_ANSWER_DEADLINE} s")
        if not answer.packet:
            raise WorkerFailed("the fork server went away")
        return answer

    def _spawned(self, answer: _Answered, channel: socket.socket, output: int) -> SpawnedProcess:
        """The worker that the answer names.

        Raises:
            WorkerFailed: none was made, or it is gone already.
        """
        with ExitStack() as if_it_fails:
            for descriptor in answer.descriptors:
                if_it_fails.callback(os.close, descriptor)
            try:
                worker = parse_forked_worker(answer.packet, len(answer.descriptors))
                process = ChildProcess(worker.pid)
            except Malformed as error:
                log.error("fork_server_channel_corrupt", error=error.message)
                self._kill()
                raise WorkerFailed(error.message) from error
            except OSError as error:
                raise WorkerFailed(f"the worker is no process of the daemon's: {error}") from error
            if_it_fails.pop_all()
        self._take_confined(worker.confined)
        view = ProcessView(*answer.descriptors[: len(VIEW)])
        listener = answer.descriptors[-1] if worker.confined.counted else None
        return SpawnedProcess(
            process, channel, output, worker.confined, view, listener, LibraryOutput()
        )

    def give_up(self) -> None:
        """Kill it, for the daemon's end: whoever waits for a worker is told that there is none."""
        self._kill()

    def _kill(self) -> None:
        """End the fork server, which cannot be relied on any more; `run` begins another."""
        if self._process is not None:
            self._process.kill()


async def _receive(control: trio.socket.SocketType) -> _Answered:
    """A packet, and the descriptors beside it."""
    size = array.array("i").itemsize
    room = socket.CMSG_SPACE(ANSWER_DESCRIPTORS * size)
    packet, ancillary, _flags, _address = await control.recvmsg(MAX_PACKET, room)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) // size * size])
    return _Answered(packet, list(descriptors))


def _pairs(
    kind: socket.SocketKind, theirs: ExitStack, ours: ExitStack
) -> tuple[socket.socket, socket.socket, int, int]:
    """A child's channel and its output: our end and theirs of each.

    Args:
        kind: of the channel.
        theirs, ours: what closes the ends.

    Raises:
        OSError: there are no descriptors left.
    """
    channel, their_channel = socket.socketpair(socket.AF_UNIX, kind)
    ours.callback(channel.close)
    theirs.callback(their_channel.close)
    output, output_writer = os.pipe()
    ours.callback(os.close, output)
    theirs.callback(os.close, output_writer)
    return channel, their_channel, output, output_writer
