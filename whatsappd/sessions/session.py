"""One company's session: the state machine around its worker.

Causes come in (from people, time, the worker), `rules.lifecycle` decides, this module records the
transition and lets the right thing happen to the worker. Decisions are taken under a lock, in the
task that brought the cause; worker processes are started and ended by the session's own task, one
after another, so that a company never has two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import trio

from whatsappd.clock import now_ms, steady_ms
from whatsappd.engines.child_process import ProcessView
from whatsappd.engines.neonize.send_evidence import trace_attempt
from whatsappd.engines.neonize.spawn import ForkServer
from whatsappd.engines.protocol import INBOUND, SPOOL, EventKind, WorkerEvent, WorkerMethod
from whatsappd.engines.whatsapp_access import WhatsAppAccess
from whatsappd.engines.worker_process import WorkerProcess
from whatsappd.errors import Malformed, StoreFailed, WorkerFailed, WorkerGone, WrongState
from whatsappd.model.event import SESSION_QR, SESSION_STATE, Draft
from whatsappd.model.session import SessionState, SessionStatus
from whatsappd.rules.binding import Standing, bound_account
from whatsappd.rules.causes import UNLINKED_ON_REQUEST, account_refused, ban_ms, describe
from whatsappd.rules.health import Judgement, Observation
from whatsappd.rules.lifecycle import (
    ALIVE,
    WAITING,
    SessionCause,
    WorkerAction,
    counts_as_crash,
    start_refusal,
    step,
)
from whatsappd.sessions.checkup import Checkups, HealthAnswer, ask
from whatsappd.sessions.counters import SessionCounters
from whatsappd.sessions.handover import settle_cut_off
from whatsappd.sessions.inbound import InboundLog, is_own
from whatsappd.sessions.linked_account import LinkedAccount
from whatsappd.sessions.pairing import PairingCodes
from whatsappd.sessions.restarts import RestartPolicy
from whatsappd.sessions.settings import SessionSettings
from whatsappd.sessions.worker_event_causes import meaning_of
from whatsappd.state import Place
from whatsappd.store.port import Outbox
from whatsappd.store.sqlite.companies import AccountClaim, Companies

log = structlog.get_logger()

DATABASE = "session.db"

#: Causes that begin anew: what was before does not count as time down.
_WISHES = frozenset({SessionCause.START, SessionCause.TAKE_OVER})


class CompanySession:
    """Supervises one company. `run` must be running for anything to happen."""

    def __init__(
        self,
        company: str,
        *,
        directory: Path,
        fork_server: ForkServer,
        companies: Companies,
        inbound: InboundLog,
        outbox: Outbox,
        access: Callable[[], WhatsAppAccess],
        settings: SessionSettings,
    ) -> None:
        self.company = company
        self.directory = directory
        self.state = SessionState.STOPPED
        self.since_ms = now_ms()
        self.cause = "not started"
        self.next_try_ms: int | None = None
        self.restarts = 0
        self.last_recycled: str | None = None  # why
        self.last_error: str | None = None
        self.last_error_ms: int | None = None
        self.last_inbound_ms: int | None = None
        self.jid: str | None = None
        self.lid: str | None = None
        self.push_name: str | None = None
        self.account: str | None = None  # that the company is bound to; see `rules.binding`
        self.pairing = PairingCodes()
        self.wanted = False
        self.counters = SessionCounters()
        self.checkups = Checkups(company, settings, self.counters)

        self._fork_server = fork_server
        self._companies = companies
        self._inbound = inbound
        self._outbox = outbox
        self._access = access
        self._settings = settings
        # What is shown to people is by the wall clock; what is waited for and judged is by the
        # other one.
        self._places: tuple[Place, ...] = ()  # the files that the worker opened
        self._files_trouble: str | None = None
        self._since = steady_ms()
        self._down_since: int | None = self._since
        self._next_try: int | None = None
        self._log = log.bind(company=company)

        #: Held by the dispatcher while a message is being handed over.
        self.handing_over = trio.Lock()
        self._lock = trio.Lock()
        self._generation = 0  # of workers: news of an earlier one are ignored
        self._action: WorkerAction | None = None
        self._wake = trio.Event()
        self._settled = trio.Event()
        self._settled.set()
        self._changed = trio.Event()
        self._worker: WorkerProcess | None = None
        self._worker_scope = trio.CancelScope()
        self._worker_done = trio.Event()
        self._worker_done.set()
        self._timer = trio.CancelScope()
        self._retries = RestartPolicy(settings)
        self._linked = LinkedAccount()

    # --- what people ask for -----------------------------------------------------------------

    async def start(self, *, take_over: bool = False) -> None:
        """Bring the session up; no change if it is. Returns once the attempt has begun.

        Raises:
            WrongState: the account was taken over by another process, and `take_over` is False.
        """
        refusal = None if take_over else start_refusal(self.state)
        if refusal:
            raise WrongState(f"{self.company}: {refusal}", company=self.company, state=self.state)
        if self.state not in ALIVE:
            self.restarts = 0
            self._retries.forgive()
        await self._apply(SessionCause.TAKE_OVER if take_over else SessionCause.START)

    async def stop(self, *, words: str | None = None) -> None:
        """Bring the session down; returns when its process is gone.

        A message that is being handed to WhatsApp is waited for, for a while.
        """
        await self.begin_stop(words=words)
        await self.settled()

    async def begin_stop(self, *, words: str | None = None) -> None:
        """`stop`, without waiting for the process to be gone."""
        await self._apply(SessionCause.STOP, words=words)

    async def settled(self) -> None:
        """Wait until what was begun is done, or the session's task is at its end."""
        await self._settled.wait()

    async def begin_logout(self) -> None:
        """Unlink the device at WhatsApp, and stop, without waiting for the process to be gone.

        A held session connects for it, and takes nothing that arrives meanwhile.

        Raises:
            WrongState: the session is not connected, so WhatsApp cannot be told.
            WorkerFailed, WorkerGone: WhatsApp was not told.
        """
        if self.state is SessionState.HELD:
            await self._unlink_held()
            return
        worker = self.connected_worker("logout")
        # WhatsApp may end the connection before it answers.
        self._linked.unlink_words = UNLINKED_ON_REQUEST
        try:
            await worker.call(WorkerMethod.LOGOUT)
        except WorkerGone:
            if self.state is not SessionState.LOGGED_OUT:
                self._linked.unlink_words = None
                raise
        except BaseException:
            self._linked.unlink_words = None
            raise
        await self._apply(SessionCause.LOGGED_OUT)

    async def _unlink_held(self) -> None:
        self._linked.is_unlinking = True
        self._linked.unlink_words = UNLINKED_ON_REQUEST
        try:
            await self._apply(SessionCause.UNLINK)
            with trio.move_on_after(self._settings.unlink_deadline_s):
                while self.state in ALIVE | WAITING:
                    await self.wait_changed()
        finally:
            self._linked.is_unlinking = False
        if self.state is not SessionState.LOGGED_OUT:
            self._linked.unlink_words = None
            raise WrongState(
                f"{self.company}: the device could not be unlinked: it is {self.state} "
                f"({self.cause}); try again, or unlink it on the phone",
                company=self.company,
                state=str(self.state),
            )

    def kill_worker(self) -> bool:
        """Kill the worker, for the daemon's end; whether there was one."""
        worker = self._worker
        if worker is not None:
            worker.kill()
        return worker is not None

    async def replace_hung_worker(self) -> None:
        """Kill a worker that answers nothing; a new one follows after the usual pause."""
        await self._apply(SessionCause.HUNG)

    async def replace_worker(self) -> None:
        """Replace the worker after a defect of ours that left unknown what it is at.

        The next one finds out what became of messages that were being handed over.
        """
        await self._apply(SessionCause.DEFECT)

    async def replace_stuck_worker(self) -> None:
        """Let a new worker take over from one that waits in vain for WhatsApp's acknowledgement.

        Call it between two messages. The message itself has arrived.
        """
        await self._apply(SessionCause.RECYCLED, {"why": "WhatsApp acknowledged a message no more"})

    async def recycle(self, why: str) -> bool:
        """Let a new worker take over, between two messages; whether it does.

        It does not while a message is on its way for long, or without a connection.
        """
        generation, settings = self._generation, self._settings
        with trio.move_on_after(settings.hand_over_grace_s) as patience:
            async with self.handing_over:
                patience.deadline = math.inf
                # Who cannot decrypt a message asks for it again, and whatsmeow remembers what it
                # sent in memory only.
                with trio.move_on_after(settings.confirm_grace_s):
                    since_ms = now_ms() - round(settings.confirm_grace_s * 1000)
                    await self._outbox.view.wait_confirmed(self.company, since_ms)
                await self._apply(SessionCause.RECYCLED, {"why": why}, generation=generation)
        return generation != self._generation

    def connected_worker(self, purpose: str) -> WorkerProcess:
        """The worker, if the session is connected.

        Raises:
            WrongState: it is not; the message says what to do.
        """
        if self.state is not SessionState.CONNECTED or self._worker is None:
            raise WrongState(
                f"{self.company}: {purpose} needs a connected session, and this one is "
                f"{self.state} ({self.cause})",
                company=self.company,
                state=str(self.state),
            )
        return self._worker

    def status(
        self, *, queued: int = 0, outreach_paused_until_ms: int | None = None
    ) -> SessionStatus:
        return SessionStatus(
            company=self.company,
            wanted=self.wanted,
            state=str(self.state),
            since_ms=self.since_ms,
            cause=self.cause,
            next_try_ms=self.next_try_ms,
            restarts=self.restarts,
            recycled=self.counters.restarts[SessionCause.RECYCLED],
            last_recycled=self.last_recycled,
            worker_pid=self._worker.pid if self._worker else None,
            jid=self.jid,
            lid=self.lid,
            push_name=self.push_name,
            qr=self.pairing.code.qr if self.pairing.code else None,
            last_inbound_ms=self.last_inbound_ms,
            last_error=self.last_error,
            last_error_ms=self.last_error_ms,
            queued=queued,
            outreach_paused_until_ms=outreach_paused_until_ms,
            account=self.account,
        )

    @property
    def can_send(self) -> bool:
        """Whether messages can be handed over: it is connected, and its worker has not just gone.

        If not, `wait_changed` tells of the next moment to ask.
        """
        worker = self._worker
        return self.state is SessionState.CONNECTED and worker is not None and not worker.is_gone

    @property
    def down_ms(self) -> int | None:
        """For how long it has not been connected; None while it is."""
        return None if self._down_since is None else steady_ms() - self._down_since

    @property
    def recyclable(self) -> WorkerProcess | None:
        """The worker, while a new one could take its place."""
        return self._worker if self.state is SessionState.CONNECTED else None

    @property
    def worker_view(self) -> ProcessView | None:
        """What the kernel tells about the worker; None without one."""
        return None if self._worker is None else self._worker.view

    @property
    def refused_calls(self) -> Mapping[str, int]:
        """System calls that the present worker was refused, by name."""
        return self._worker.refused_calls if self._worker is not None else {}

    async def wait_changed(self) -> None:
        """Wait for the next change of state."""
        await self._changed.wait()

    @property
    def _account(self) -> Path:
        """The account's own database: whatsmeow's."""
        return self.directory / DATABASE

    # --- decisions ---------------------------------------------------------------------------

    async def _apply(
        self,
        cause: SessionCause,
        data: dict[str, Any] | None = None,
        *,
        generation: int | None = None,
        words: str | None = None,
    ) -> None:
        """Take the transition of `cause`, if the table has one, and record it."""
        data = data or {}
        async with self._lock:
            if generation is not None and generation != self._generation:
                return
            cause, data = self._intensified(cause, data)
            following = step(self.state, cause)
            if following is None:
                return
            before = self.state
            if cause is SessionCause.LOGGED_OUT:
                words, self._linked.unlink_words = self._linked.unlink_words or words, None
            words = words or describe(cause, data)
            if (following.state, following.action) == (
                before,
                WorkerAction.NONE,
            ) and words == self.cause:
                return
            self._note(cause, words)
            self.counters.transition(before, cause, following, steady_ms())
            self.state = following.state
            if self.state is SessionState.CONNECTED:
                self._down_since = None
            elif self._down_since is None or (before not in ALIVE and cause in _WISHES):
                self._down_since = steady_ms()
            if before is not following.state:
                self.since_ms, self._since = now_ms(), steady_ms()
            self.cause = words
            if following.state is not SessionState.PAIRING:
                self.pairing.hide()
            self._plan(following.action, cause, data)
            self._log.info("session_state", state=str(self.state), before=str(before), cause=words)
            self._changed.set()
            self._changed = trio.Event()
            # Whoever asked for it may be gone by now; that it happened is recorded all the same.
            with trio.CancelScope(shield=True):
                if cause is SessionCause.LOGGED_OUT:
                    self._linked.drops_spool = self._linked.foreign == self._generation - 1
                    await self._take_identity(jid=None, lid=None, push_name=None)
                await self._record(before, cause)

    def _intensified(
        self, cause: SessionCause, data: dict[str, Any]
    ) -> tuple[SessionCause, dict[str, Any]]:
        """`cause`, or what it comes to where it is one too many."""
        if cause is SessionCause.BROKEN_OFF and self._retries.broke_off_too_often(steady_ms()):
            return SessionCause.ENDED, {"error": describe(cause, data)}
        if not counts_as_crash(cause) or self.state not in ALIVE:
            return cause, data
        if not self._retries.crashed_too_often(steady_ms()):
            return cause, data
        last = describe(cause, data)
        total = SessionCause.CRASHING if data.get("crash") else SessionCause.GIVE_UP
        return total, {"crashes": self._settings.crash_limit + 1, "last": last}

    def _note(self, cause: SessionCause, words: str) -> None:
        match cause:
            case SessionCause.CONNECTED:
                self._retries.connected(steady_ms())
            case (
                SessionCause.START
                | SessionCause.TAKE_OVER
                | SessionCause.STOP
                | SessionCause.OPENED
                | SessionCause.QR
            ):
                pass
            case (
                SessionCause.PAIRED
                | SessionCause.RETRY_DUE
                | SessionCause.KEEPALIVE_RESTORED
                | SessionCause.RECYCLED
            ):
                pass
            case SessionCause.UNLINK:
                pass
            case _:
                self._note_error(words)

    def _note_error(self, words: str) -> None:
        self.last_error = words
        self.last_error_ms = now_ms()
        self.counters.errors += 1

    def _plan(self, action: WorkerAction, cause: SessionCause, data: dict[str, Any]) -> None:
        """Hand `action` to the session's task, and set the time of the next try."""
        self.next_try_ms = self._next_try = None
        if cause is SessionCause.RECYCLED:
            self.last_recycled = data["why"]
        if action is WorkerAction.NONE:
            return
        if action is WorkerAction.KILL_AND_WAIT:
            self._try_in(max(ban_ms(data), self._settings.shortest_ban_ms))
        elif action is WorkerAction.KILL_AND_REST:
            self._try_in(self._settings.crash_rest_ms)
        elif action is WorkerAction.KILL_AND_RETRY:
            self._try_in(self._retries.next_delay_ms(steady_ms()))
        elif action is WorkerAction.SPAWN and cause is SessionCause.RETRY_DUE:
            self.restarts += 1
        self._generation += 1
        self._action = action
        if self._settled.is_set():  # else somebody waits for what is under way, and this follows it
            self._settled = trio.Event()
        self._wake.set()

    def _try_in(self, delay_ms: int) -> None:
        self.next_try_ms, self._next_try = now_ms() + delay_ms, steady_ms() + delay_ms

    async def _record(self, before: SessionState, cause: SessionCause) -> None:
        data = {
            "state": str(self.state),
            "from": str(before),
            "why": str(cause),
            "cause": self.cause,
            "next_try_ms": self.next_try_ms,
            "worker_pid": self._worker.pid if self._worker and self.state in ALIVE else None,
            "jid": self.jid,
        }
        await self._log_drafts([Draft(self.company, SESSION_STATE, data)])

    async def _log_drafts(self, drafts: list[Draft]) -> None:
        """Log what is about the session itself; a full disk must not stop supervision."""
        try:
            await self._inbound.append(drafts)
        except StoreFailed as error:
            self._log.error("event_not_logged", reason=error.message)

    # --- the session's task ------------------------------------------------------------------

    async def run(self) -> None:
        """Carry out actions until cancelled; then end the worker and leave nothing behind.

        After an error it ends in the same way, and may be run again: it goes on from there.
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
        elif self.state in ALIVE:  # the worker ended with that run
            await self._apply(SessionCause.DEFECT)
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
            self._worker_scope = trio.CancelScope(shield=True)
            self._worker_done = trio.Event()
            nursery.start_soon(self._work, self._generation, self._worker_scope, self._worker_done)
        else:
            self._set_timer(nursery)

    def _set_timer(self, nursery: trio.Nursery) -> None:
        """Have the next try begin when it is due, if there is to be one."""
        if self._next_try is not None:
            self._timer = trio.CancelScope()
            delay = max(0, self._next_try - steady_ms()) / 1000
            nursery.start_soon(self._retry_later, delay, self._generation, self._timer)

    async def _retry_later(self, delay: float, generation: int, timer: trio.CancelScope) -> None:
        with timer:
            await trio.sleep(delay)
            await self._apply(SessionCause.RETRY_DUE, generation=generation)

    async def _end_worker(self, grace_s: float) -> None:
        worker = self._worker  # it may end by itself meanwhile
        if worker is not None:
            with trio.move_on_after(self._settings.hand_over_grace_s):
                async with self.handing_over:
                    pass
            if self.state is SessionState.LOGGED_OUT:
                # whatsmeow tells first and deletes the account then; killed in between, the next
                # worker would log in with it, and be told the same again.
                await trio.sleep(self._settings.logout_grace_s)
            # An account that was never paired cannot be stopped from inside, only killed.
            await worker.shut_down(grace_s if self.jid else 0)
            with trio.move_on_after(grace_s):
                await self._worker_done.wait()
        self._worker_scope.cancel()
        await self._worker_done.wait()
        if self._linked.drops_spool:
            (self.directory / SPOOL).unlink(missing_ok=True)
            self._linked.drops_spool = False

    async def _work(self, generation: int, scope: trio.CancelScope, done: trio.Event) -> None:
        """One worker's whole life, from the fork to its last event."""
        try:
            with scope:
                try:
                    await self._work_once(generation)
                except (WorkerFailed, StoreFailed) as error:
                    await self._spawn_failed(error.message, generation)
                except OSError as error:
                    await self._spawn_failed(f"{self.directory}: {error.strerror}", generation)
        finally:
            self._worker = None
            done.set()

    async def _spawn_failed(self, reason: str, generation: int) -> None:
        await self._apply(SessionCause.SPAWN_FAILED, {"error": reason}, generation=generation)

    async def _work_once(self, generation: int) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.pairing.begin()
        self._linked.unlink_now = unlink_now = trio.Event()
        if self._linked.is_unlinking:
            self._linked.foreign = generation
        elif not await self._may_use_account(generation):
            return
        attempts, jid = await self._outbox.handovers.interrupted(self.company), self.jid
        taken = await self._inbound.taken(self.company)
        access = self._access()
        spawned = await self._fork_server.spawn(
            self.company, directory=self.directory, ports=access.ports
        )
        worker = self._worker = WorkerProcess(self.company, spawned, self.counters.refused_calls)

        async def on_events(events: list[WorkerEvent]) -> None:
            taken = await self._take_events(events, generation)
            if taken is not None:
                await worker.confirm(taken)

        async with trio.open_nursery() as nursery:

            async def run_worker(*, task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                status = await worker.run(on_events)
                data = {"status": str(status), "crash": worker.crash, "broken": worker.broken}
                await self._apply(SessionCause.EXITED, data, generation=generation)
                nursery.cancel_scope.cancel()

            await nursery.start(run_worker)
            nursery.start_soon(self._unlink_when_told, worker, generation, unlink_now)
            with trio.move_on_after(self._settings.open_deadline_s) as deadline:
                try:
                    await worker.call(
                        WorkerMethod.OPEN,
                        database=DATABASE,
                        taken=taken,
                        proxy=access.proxy,
                        noise_root=access.noise_root,
                        log_level=self._settings.library_log_level,
                    )
                except WorkerGone:
                    return  # its exit is reported by run_worker, with the status
                except WorkerFailed as error:
                    await self._spawn_failed(error.message, generation)
                    return
            if deadline.cancelled_caught:
                await self._apply(SessionCause.HUNG, generation=generation)
                return
            await self._apply(SessionCause.OPENED, generation=generation)
            self._places = await trio.to_thread.run_sync(self._find_places)
            # However long our disk refuses it, which is no fault of the worker's: only the chats
            # of these messages wait.
            await settle_cut_off(
                self._outbox.handovers,
                self.company,
                attempts,
                self._account,
                jid=jid,
                retry_s=self._settings.retry_store_s,
            )

    # --- whose account it is ------------------------------------------------------------------

    async def _may_use_account(self, generation: int) -> bool:
        """Whether the account that is linked, if any, is the company's; before it is connected."""
        if self.jid is None:
            return True
        claim = await self._companies.look_at_account(
            self.company, bound_account(self.jid, self.lid)
        )
        if claim.standing is not Standing.OURS:
            await self._hold(claim, self.jid, generation)
        return claim.standing is Standing.OURS

    async def _admit(self, identity: dict[str, Any], generation: int) -> bool:
        """Whether a worker that is connected may go on, with the account that it has."""
        if generation == self._linked.admitted or generation != self._generation:
            return True
        if self._linked.is_unlinking:
            self._linked.unlink_now.set()
            return False
        jid = identity["jid"] or self.jid or self._linked.paired_jid
        if jid is None:
            data = {"error": "it is linked, and the account's own name for itself cannot be read"}
            await self._apply(SessionCause.SPAWN_FAILED, data, generation=generation)
            return False
        try:
            linked = bound_account(jid, identity["lid"])
        except ValueError as error:
            raise Malformed(f"a worker is connected as nobody: {error}") from error
        try:
            claim = await self._companies.claim_account(self.company, linked)
        except StoreFailed as error:
            reason = f"its account cannot be recorded: {error.message}"
            await self._apply(SessionCause.SPAWN_FAILED, {"error": reason}, generation=generation)
            return False
        if claim.standing is Standing.OURS:
            self._linked.admitted, self.account = generation, linked.jid
            return True
        self._linked.foreign = generation
        if claim.standing is Standing.TAKEN and generation == self._linked.paired:
            # It was linked by mistake a moment ago, so it does not stay linked.
            assert claim.owner is not None
            self._linked.unlink_words = account_refused(linked.jid, claim.owner)
            self._linked.unlink_now.set()
            return False
        await self._take_identity(**identity)
        await self._hold(claim, linked.jid, generation)
        return False

    async def _hold(self, claim: AccountClaim, linked: str | None, generation: int) -> None:
        if claim.standing is Standing.TAKEN:
            await self._apply(
                SessionCause.ACCOUNT_TAKEN, {"owner": claim.owner}, generation=generation
            )
            return
        data = {"linked": linked, "bound": claim.bound and claim.bound.jid}
        await self._apply(SessionCause.OTHER_ACCOUNT, data, generation=generation)

    async def _unlink_when_told(
        self, worker: WorkerProcess, generation: int, told: trio.Event
    ) -> None:
        """Unlink the device, of an account that is not the company's or that nobody wants here."""
        await told.wait()
        words = self._linked.unlink_words
        reason = f"no answer within {self._settings.unlink_deadline_s:g} s"
        with trio.move_on_after(self._settings.unlink_deadline_s):
            try:
                await worker.call(WorkerMethod.LOGOUT)
            except (WorkerFailed, WorkerGone) as error:
                reason = error.message
            else:
                reason = ""
        if generation != self._generation or self.state not in ALIVE:
            return  # WhatsApp ended the connection, and that told the rest
        if reason:
            self._linked.unlink_words = None
            words = f"{words or 'a device that is to be unlinked'}; but it could not be: {reason}"
            await self._apply(SessionCause.ACCOUNT_TAKEN, generation=generation, words=words)
            return
        await self._apply(SessionCause.LOGGED_OUT, generation=generation, words=words)

    async def trace(self, secret: bytes) -> str | None:
        """WhatsApp's id of an attempt that had no proper answer; None if it cannot be known."""
        return await trace_attempt(self.company, self._account, secret, jid=self.jid)

    # --- the worker's news -------------------------------------------------------------------

    async def _take_events(self, events: list[WorkerEvent], generation: int) -> int | None:
        """Log what arrived from WhatsApp, and act on what is about the session, in order.

        Returns the number of the last event that is on disk now, if that is news.
        """
        messages: list[WorkerEvent] = []
        taken: int | None = None
        for event in events:
            if event.kind in INBOUND and generation == self._linked.foreign:
                continue  # not confirmed either: the worker keeps it, for whom it may concern
            if event.kind in INBOUND and not is_own(event):
                self.counters.inbound[event.kind] += 1
            if event.kind is EventKind.UNREADABLE:
                self._note_unreadable(event.data)
            if event.is_inbound:
                self.last_inbound_ms = now_ms()
                messages.append(event)
                continue
            taken = await self._inbound.take(self.company, messages) or taken
            messages = []
            await self._take_news(event, generation)
        return await self._inbound.take(self.company, messages) or taken

    def _note_unreadable(self, data: dict[str, Any]) -> None:
        """A contact can send thousands: with each doubling of their number, one line says so."""
        count = self.counters.inbound[EventKind.UNREADABLE]
        if count & (count - 1) == 0:
            self._log.warning("event_unreadable", of=data["of"], reason=data["error"], so_far=count)

    async def _take_news(self, event: WorkerEvent, generation: int) -> None:
        news = meaning_of(event, codes_ran_out=self.pairing.ran_out)
        if news.error is not None:
            self._note_error(news.error)
        if event.kind is EventKind.PAIRED:
            self._linked.paired, self._linked.paired_jid = generation, event.data["jid"]
        if event.kind is EventKind.CONNECTED:
            known = {name: event.data[name] for name in ("jid", "lid", "push_name")}
            if not await self._admit(known, generation):
                return
            if known["jid"] is not None:  # else the worker could not read who it is
                await self._take_identity(**known)
        if news.cause is not None:
            await self._apply(news.cause, news.data, generation=generation)
        if event.kind is EventKind.QR:
            await self._show_qr(event.data["code"], generation)

    async def _show_qr(self, code: str, generation: int) -> None:
        if generation != self._generation:
            return
        shown = self.pairing.show(code, now_ms())
        self.counters.qr_codes += 1
        await self._log_drafts([Draft(self.company, SESSION_QR, shown.as_event())])

    async def _take_identity(
        self, *, jid: str | None, lid: str | None, push_name: str | None
    ) -> None:
        self.jid, self.lid, self.push_name = jid, lid, push_name
        try:
            await self._companies.put_identity(self.company, jid=jid, lid=lid, push_name=push_name)
        except StoreFailed as error:
            self._log.error("identity_not_stored", reason=error.message)

    # --- health ------------------------------------------------------------------------------

    def _find_places(self) -> tuple[Place, ...]:
        found: list[Place] = []
        for path in (self.directory, self._account):
            with suppress(OSError):  # then it is said at the next check that there is none
                found.append(Place.of(path))
        return tuple(found)

    def _find_trouble(self) -> str | None:
        """What is wrong with the files that the worker uses, in words."""
        for place in self._places:
            trouble = place.trouble()
            if trouble is not None:
                return f"{place.path} {trouble}"
        return None

    async def check_health(self) -> None:
        """Ask the worker how it is, and have it replaced if `rules.health` says so."""
        self._files_trouble = await trio.to_thread.run_sync(self._find_trouble)
        worker, generation, since = self._worker, self._generation, self._since
        answer = HealthAnswer()
        if worker is not None and self.state in ALIVE and self.state is not SessionState.STARTING:
            answer = await ask(worker, self._settings.health_deadline_s)
        if (generation, since) != (self._generation, self._since):
            answer = HealthAnswer()  # it was about another worker, or another state of it
        judgement = self.checkups.take(self._observe(answer), self._generation, answer)
        if judgement.replace is not None:
            cause, words = judgement.replace
            await self._apply(cause, generation=generation, words=words)

    def judgement(self) -> Judgement:
        """How the session is now, as far as the last check can tell."""
        answer = self.checkups.answer_about(self._generation, self._since)
        return self.checkups.judge(self._observe(answer))

    def _observe(self, answer: HealthAnswer) -> Observation:
        return Observation(
            wanted=self.wanted,
            state=self.state,
            cause=self.cause,
            since_ms=self._since,
            down_since_ms=self._down_since,
            now_ms=steady_ms(),
            asked=answer.asked,
            socket_up=answer.socket_up,
            logged_in=answer.logged_in,
            files=self._files_trouble,
        )
