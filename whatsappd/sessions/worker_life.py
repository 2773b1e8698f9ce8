"""Starts and ends the workers of one company, one after another.

`SessionMachine` decides that a worker is to be started, ended or replaced. `do` gives that to the
one task that runs `run`, so a company never has two workers. The end or failure of a worker goes to
the session as an incident; `WorkerEventIntake` takes its events.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from whatsappd.clock import steady_ms
from whatsappd.engines.decode import WorkerEvent
from whatsappd.engines.port import EngineWorker
from whatsappd.engines.protocol import ACCOUNT, SPOOL
from whatsappd.errors import StoreFailed, WorkerFailed, WorkerGone
from whatsappd.model.session import SessionState
from whatsappd.rules import incidents
from whatsappd.rules.incidents import UNLINKED_ON_REQUEST, Incident, plain
from whatsappd.rules.lifecycle import ALIVE, SessionCause, WorkerAction
from whatsappd.sessions.checkup import OpenedFiles
from whatsappd.sessions.handover import settle_cut_off
from whatsappd.sessions.session_machine import SessionMachine
from whatsappd.sessions.session_parts import SessionParts
from whatsappd.sessions.session_record import SessionRecord
from whatsappd.sessions.worker_event_intake import WorkerEventIntake


class WorkerLife:
    """The workers of one company. `run` must be running for anything to happen."""

    def __init__(
        self,
        record: SessionRecord,
        directory: Path,
        parts: SessionParts,
        machine: SessionMachine,
        intake: WorkerEventIntake,
    ) -> None:
        self.worker: EngineWorker | None = None
        self.files = OpenedFiles((directory, directory / ACCOUNT))
        #: Held by the dispatcher while a message is being handed over.
        self.handing_over = trio.Lock()
        #: Have what a foreign account's worker kept go with that worker.
        self.drops_spool = False
        self._record = record
        self._directory = directory
        self._parts = parts
        self._settings = parts.settings
        self._machine = machine
        self._intake = intake
        self._happened = intake.happened
        self._action: WorkerAction | None = None
        self._wake = trio.Event()
        self._settled = trio.Event()
        self._settled.set()
        self._scope = trio.CancelScope()  # of the present worker's task
        self._done = trio.Event()  # it is at its end
        self._done.set()
        self._timer = trio.CancelScope()

    def do(self, action: WorkerAction) -> None:
        """Have the task do what the machine decided; returns at once."""
        if action is WorkerAction.NONE:
            return
        self._action = action
        if self._settled.is_set():  # else somebody waits for what is under way, and this follows it
            self._settled = trio.Event()
        self._wake.set()

    async def settled(self) -> None:
        """Wait until everything given to `do` is done, or the task has ended."""
        await self._settled.wait()

    async def run(self) -> None:
        """Carry out what is given to `do`, until cancelled; then end the worker.

        An error ends the worker too; `run` may be called again then, and continues from there.
        """
        async with trio.open_nursery() as nursery:
            try:
                await self._resume(nursery)
                while True:
                    await self._wake.wait()
                    self._wake = trio.Event()
                    action, self._action = self._action, None
                    assert action is not None
                    await self._execute(action, nursery)
                    if self._action is None:
                        self._settled.set()
            finally:
                with trio.CancelScope(shield=True):
                    await self._end_worker(self._settings.stop_grace_s)
                self._settled.set()
                nursery.cancel_scope.cancel()

    async def _resume(self, nursery: trio.Nursery) -> None:
        """Take up what a run before this one left."""
        if self._action is not None:
            self._wake.set()
        elif self._machine.state in ALIVE:  # the worker ended with that run
            await self._happened(plain(SessionCause.DEFECT))
        else:
            self._set_timer(nursery)

    async def _execute(self, action: WorkerAction, nursery: trio.Nursery) -> None:
        self._timer.cancel()
        settings = self._settings
        # One that is recycled is well: it has all the time it needs to leave nothing behind.
        patient = action is WorkerAction.REPLACE
        await self._end_worker(settings.recycle_grace_s if patient else settings.stop_grace_s)
        if self._action is not None:
            return  # overtaken while the worker was ending
        if action in (WorkerAction.SPAWN, WorkerAction.REPLACE):
            # Shielded: also after an error of ours the worker is ended in order, by `_end_worker`.
            self._scope = trio.CancelScope(shield=True)
            self._done = trio.Event()
            nursery.start_soon(self._work, self._machine.generation, self._scope, self._done)
        else:
            self._set_timer(nursery)

    def _set_timer(self, nursery: trio.Nursery) -> None:
        """Have the next try begin when it is due, if there is to be one."""
        next_try = self._machine.next_try
        if next_try is not None:
            self._timer = trio.CancelScope()
            delay = max(0, next_try.steady_ms - steady_ms()) / 1000
            nursery.start_soon(self._retry_later, delay, self._machine.generation, self._timer)

    async def _retry_later(self, delay: float, generation: int, timer: trio.CancelScope) -> None:
        with timer:
            await trio.sleep(delay)
            await self._happened(plain(SessionCause.RETRY_DUE), generation)

    async def _end_worker(self, grace_s: float) -> None:
        worker = self.worker  # it may end by itself meanwhile
        if worker is not None:
            with trio.move_on_after(self._settings.hand_over_grace_s):
                async with self.handing_over:
                    pass
            if self._machine.state is SessionState.LOGGED_OUT:
                # The library tells first and deletes the account then; killed in between, the next
                # worker would log in with it, and be told the same again.
                await trio.sleep(self._settings.logout_grace_s)
            # An account that was never paired cannot be stopped from inside, only killed.
            await worker.shut_down(grace_s if self._record.is_linked else 0)
            with trio.move_on_after(grace_s):
                await self._done.wait()
        self._scope.cancel()
        await self._done.wait()
        if self.drops_spool:
            (self._directory / SPOOL).unlink(missing_ok=True)
            self.drops_spool = False

    async def _work(self, generation: int, scope: trio.CancelScope, done: trio.Event) -> None:
        """One worker's whole life, from the fork to its last event."""
        try:
            with scope:
                try:
                    await self._work_once(generation)
                except (WorkerFailed, StoreFailed) as error:
                    await self._not_started(error.message, generation)
                except OSError as error:
                    await self._not_started(f"{self._directory}: {error.strerror}", generation)
        finally:
            self.worker = None
            done.set()

    async def _not_started(self, reason: str, generation: int) -> None:
        await self._happened(incidents.spawn_failed(reason), generation)

    async def _work_once(self, generation: int) -> None:
        parts, company = self._parts, self._record.company
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unlink_now = await self._intake.prepare(generation)
        if unlink_now is None:
            return
        jid = self._record.identity.jid
        attempts = await parts.outbox.handovers.interrupted(company)
        taken = await parts.inbound.taken(company)
        refused_calls = self._machine.counters.refused_calls

        def count_refused(call: str) -> None:
            refused_calls[call] += 1

        worker = await parts.engine.start_worker(company, self._directory, count_refused)
        self.worker = worker

        async def on_events(events: list[WorkerEvent]) -> None:
            on_disk = await self._intake.take(events, generation)
            if on_disk is not None:
                await worker.confirm(on_disk)

        async with trio.open_nursery() as nursery:

            async def run_worker(*, task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                status = await worker.run(on_events)
                ended = incidents.exited(str(status), worker.crash, worker.broken)
                await self._happened(ended, generation)
                nursery.cancel_scope.cancel()

            await nursery.start(run_worker)
            nursery.start_soon(self._unlink_when_told, worker, generation, unlink_now)
            with trio.move_on_after(self._settings.open_deadline_s) as deadline:
                try:
                    await worker.open(taken=taken, log_level=self._settings.library_log_level)
                except WorkerGone:
                    return  # its exit is told by run_worker, with the status
                except WorkerFailed as error:
                    await self._not_started(error.message, generation)
                    return
            if deadline.cancelled_caught:
                await self._happened(plain(SessionCause.HUNG), generation)
                return
            await self._happened(plain(SessionCause.OPENED), generation)
            await trio.to_thread.run_sync(self.files.note)
            # However long our disk refuses it, which is no fault of the worker's: only the chats
            # of these messages wait.
            await settle_cut_off(
                parts.outbox.handovers,
                company,
                attempts,
                partial(parts.engine.find_attempts, self._directory, jid=jid),
                retry_s=self._settings.retry_store_s,
            )

    async def _unlink_when_told(
        self, worker: EngineWorker, generation: int, told: trio.Event
    ) -> None:
        """Unlink the device, of an account that is not the company's or that nobody wants here."""
        await told.wait()
        machine = self._machine
        words = machine.unlink_words
        reason = f"no answer within {self._settings.unlink_deadline_s:g} s"
        with trio.move_on_after(self._settings.unlink_deadline_s):
            try:
                await worker.log_out()
            except (WorkerFailed, WorkerGone) as error:
                reason = error.message
            else:
                reason = ""
        if generation != machine.generation or machine.state not in ALIVE:
            return  # WhatsApp ended the connection, and that told the rest
        if reason:
            machine.unlink_words = None
            words = f"{words or 'a device that is to be unlinked'}; but it could not be: {reason}"
            incident = Incident(SessionCause.ACCOUNT_TAKEN, words)
        else:
            incident = Incident(SessionCause.LOGGED_OUT, words or UNLINKED_ON_REQUEST)
        await self._happened(incident, generation)
