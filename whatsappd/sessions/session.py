"""One company's session, as the daemon's other parts use it: start, stop, status, health.

Incidents come from people, from timers and from the worker. `SessionMachine` decides what follows,
`WorkerLife` does it to the worker, and this records it. Decisions are taken under a lock, in the
task that brought the incident.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import structlog
import trio

from whatsappd.clock import moment, now_ms, steady_ms
from whatsappd.engines.port import EngineWorker, KernelView
from whatsappd.errors import StoreFailed, WorkerGone, WrongState
from whatsappd.model.event import SESSION_STATE, Draft
from whatsappd.model.session import SessionState, SessionStatus
from whatsappd.rules.incidents import UNLINKED_ON_REQUEST, Incident, plain, recycled
from whatsappd.rules.lifecycle import ALIVE, WAITING, SessionCause, start_refusal
from whatsappd.rules.session_health import Judgement, Observation
from whatsappd.sessions.checkup import Checkups, HealthAnswer, ask
from whatsappd.sessions.counters import SessionCounters
from whatsappd.sessions.identity import SessionIdentity
from whatsappd.sessions.pairing_codes import ShownCode
from whatsappd.sessions.session_machine import SessionMachine, SessionStep
from whatsappd.sessions.session_parts import SessionParts
from whatsappd.sessions.session_record import SessionRecord
from whatsappd.sessions.worker_event_intake import WorkerEventIntake
from whatsappd.sessions.worker_life import WorkerLife
from whatsappd.store.port import StoredCompany

log = structlog.get_logger()


class CompanySession:
    """Supervises one company. `run` must be running for anything to happen."""

    def __init__(
        self,
        known: StoredCompany,
        *,
        directory: Path,
        parts: SessionParts,
        last_inbound_ms: int | None = None,
    ) -> None:
        """
        Args:
            known: what is stored of the company.
            last_inbound_ms: when something arrived last, in epoch milliseconds.
        """
        self.company = company = known.company
        self.directory = directory
        self._parts = parts
        self._settings = parts.settings
        self._machine = SessionMachine(parts.settings, moment())
        self.checkups = Checkups(company, parts.settings, self._machine.counters)
        self._record = SessionRecord(known, parts.companies, last_inbound_ms)
        self._intake = WorkerEventIntake(self._record, parts, self._machine, self._happened)
        self._life = WorkerLife(self._record, directory, parts, self._machine, self._intake)
        self._lock = trio.Lock()
        self._changed = trio.Event()
        self._log = log.bind(company=company)

    # --- what it is --------------------------------------------------------------------------

    @property
    def state(self) -> SessionState:
        return self._machine.state

    @property
    def cause(self) -> str:
        """Why it is in this state, for people."""
        return self._machine.cause

    @property
    def counters(self) -> SessionCounters:
        return self._machine.counters

    @property
    def last_error(self) -> str | None:
        return self._machine.last_error

    @property
    def last_error_ms(self) -> int | None:
        return self._machine.last_error_ms

    @property
    def last_inbound_ms(self) -> int | None:
        """When something arrived from WhatsApp last, in epoch milliseconds."""
        return self._record.last_inbound_ms

    @property
    def wanted(self) -> bool:
        """Whether it should be running, also after a reboot."""
        return self._record.wanted

    @property
    def identity(self) -> SessionIdentity:
        return self._record.identity

    @property
    def is_linked(self) -> bool:
        """Whether it has an account on WhatsApp, as far as is known."""
        return self._record.is_linked

    @property
    def account(self) -> str | None:
        """The JID of the account that the company is bound to; see `rules.account_binding`."""
        return self._record.account

    @property
    def shown_code(self) -> ShownCode | None:
        """The QR code that can be scanned now."""
        return self._intake.pairing.code

    @property
    def can_send(self) -> bool:
        """Whether messages can be handed over: it is connected, and its worker has not just gone.

        If not, `wait_changed` tells of the next moment to ask.
        """
        worker = self._life.worker
        return self.state is SessionState.CONNECTED and worker is not None and not worker.is_gone

    @property
    def handing_over(self) -> trio.Lock:
        """Held by the dispatcher while a message is being handed over."""
        return self._life.handing_over

    @property
    def down_ms(self) -> int | None:
        """For how long it has not been connected; None while it is."""
        since = self._machine.down_since_ms
        return None if since is None else steady_ms() - since

    @property
    def recyclable(self) -> EngineWorker | None:
        """The worker, while a new one could take its place."""
        return self._life.worker if self.state is SessionState.CONNECTED else None

    @property
    def worker_pid(self) -> int | None:
        return None if self._life.worker is None else self._life.worker.pid

    @property
    def worker_view(self) -> KernelView | None:
        """What the kernel tells about the worker; None without one."""
        return None if self._life.worker is None else self._life.worker.view

    @property
    def refused_calls(self) -> Mapping[str, int]:
        """System calls that the present worker was refused, by name."""
        return self._life.worker.refused_calls if self._life.worker is not None else {}

    def status(
        self, *, queued: int = 0, outreach_paused_until_ms: int | None = None
    ) -> SessionStatus:
        """What `session.status` tells about it.

        Args:
            queued: how many messages wait in its outbox.
            outreach_paused_until_ms: until when it writes to no strangers; None: it may.
        """
        machine, identity = self._machine, self.identity
        return SessionStatus(
            company=self.company,
            wanted=self.wanted,
            state=machine.state,
            since_ms=machine.since.wall_ms,
            cause=machine.cause,
            next_try_ms=machine.next_try.wall_ms if machine.next_try else None,
            restarts=machine.restarts,
            recycled=machine.counters.restarts[SessionCause.RECYCLED],
            last_recycled=machine.last_recycled,
            worker_pid=self.worker_pid,
            jid=identity.jid,
            lid=identity.lid,
            push_name=identity.push_name,
            qr=self.shown_code.qr if self.shown_code else None,
            last_inbound_ms=self.last_inbound_ms,
            last_error=machine.last_error,
            last_error_ms=machine.last_error_ms,
            queued=queued,
            outreach_paused_until_ms=outreach_paused_until_ms,
            account=self.account,
        )

    async def wait_changed(self) -> None:
        """Wait for the next change of state."""
        await self._changed.wait()

    def connected_worker(self, purpose: str) -> EngineWorker:
        """The worker, if the session is connected.

        Raises:
            WrongState: it is not; the message says what to do.
        """
        worker = self._life.worker
        if self.state is not SessionState.CONNECTED or worker is None:
            raise WrongState(
                f"{self.company}: {purpose} needs a connected session, and this one is "
                f"{self.state} ({self.cause})",
                company=self.company,
                state=str(self.state),
            )
        return worker

    # --- what people ask for -----------------------------------------------------------------

    async def start(self, *, take_over: bool = False) -> None:
        """Start the session, unless it runs. Returns once the attempt has begun.

        The session is wanted from now on; the caller has stored that.

        Raises:
            WrongState: the account was taken over by another process, and `take_over` is False.
        """
        self._record.note_wanted()
        refusal = None if take_over else start_refusal(self.state)
        if refusal:
            raise WrongState(f"{self.company}: {refusal}", company=self.company, state=self.state)
        if self.state not in ALIVE:
            self._machine.forgive()
        await self._happened(plain(SessionCause.TAKE_OVER if take_over else SessionCause.START))

    async def stop(self, *, words: str | None = None) -> None:
        """Stop the session; returns when its worker process is gone.

        A message that is being sent has a few seconds to end (`hand_over_grace_s`).
        """
        await self.begin_stop(words=words)
        await self.settled()

    async def begin_stop(self, *, words: str | None = None) -> None:
        """`stop`, without waiting for the process to be gone."""
        incident = plain(SessionCause.STOP)
        await self._happened(incident if words is None else incident._replace(words=words))

    async def settled(self) -> None:
        """Wait until the worker is started or ended as decided, or the session's task has ended."""
        await self._life.settled()

    async def unwant(self) -> None:
        """Store that the session is not to be started again by itself, also after a reboot.

        Raises:
            StoreFailed: it is still wanted.
        """
        await self._record.unwant()

    async def leave_account(self) -> None:
        """Unbind the company from its account.

        Raises:
            StoreFailed: the company is still bound to it.
        """
        await self._record.leave_account()

    async def give_account_up(self) -> None:
        """Let other companies use the account.

        Raises:
            StoreFailed: the account still belongs to this company.
        """
        await self._record.give_account_up()

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
        machine = self._machine
        # WhatsApp may end the connection before it answers.
        machine.unlink_words = UNLINKED_ON_REQUEST
        try:
            await worker.log_out()
        except WorkerGone:
            if self.state is not SessionState.LOGGED_OUT:
                machine.unlink_words = None
                raise
        except BaseException:
            machine.unlink_words = None
            raise
        await self._happened(Incident(SessionCause.LOGGED_OUT, UNLINKED_ON_REQUEST))

    async def _unlink_held(self) -> None:
        machine, guard = self._machine, self._intake.guard
        guard.is_unlinking = True
        machine.unlink_words = UNLINKED_ON_REQUEST
        try:
            await self._happened(plain(SessionCause.UNLINK))
            with trio.move_on_after(self._settings.unlink_deadline_s):
                while self.state in ALIVE | WAITING:
                    await self.wait_changed()
        finally:
            guard.is_unlinking = False
        if self.state is not SessionState.LOGGED_OUT:
            machine.unlink_words = None
            raise WrongState(
                f"{self.company}: the device could not be unlinked: it is {self.state} "
                f"({self.cause}); try again, or unlink it on the phone",
                company=self.company,
                state=str(self.state),
            )

    # --- what the daemon does with its worker ------------------------------------------------

    def kill_worker(self) -> bool:
        """Kill the worker at the daemon's end. Returns whether there was one."""
        worker = self._life.worker
        if worker is not None:
            worker.kill()
        return worker is not None

    async def replace_hung_worker(self) -> None:
        """Kill a worker that does not answer; a new one is started after the usual pause."""
        await self._happened(plain(SessionCause.HUNG))

    async def replace_worker(self) -> None:
        """Replace the worker after an error in the daemon, which lost track of a message.

        The next worker finds out what became of messages that were being handed over.
        """
        await self._happened(plain(SessionCause.DEFECT))

    async def replace_stuck_worker(self) -> None:
        """Replace a worker whose library waits for an acknowledgement that does not come.

        Call it between two messages. The message itself has arrived at WhatsApp.
        """
        await self._happened(recycled("WhatsApp acknowledged a message no more"))

    async def recycle(self, why: str) -> bool:
        """Replace the worker between two messages. Returns whether it is being replaced.

        It is not if the message that is being sent takes long, or the session is not connected.
        """
        generation, settings = self._machine.generation, self._settings
        with trio.move_on_after(settings.hand_over_grace_s) as patience:
            async with self.handing_over:
                patience.deadline = math.inf
                # Who cannot decrypt a message asks for it again, and the library remembers what it
                # sent in memory only.
                with trio.move_on_after(settings.confirm_grace_s):
                    since_ms = now_ms() - round(settings.confirm_grace_s * 1000)
                    await self._parts.outbox.view.wait_confirmed(self.company, since_ms)
                await self._happened(recycled(why), generation)
        return generation != self._machine.generation

    async def trace(self, secret: bytes) -> str | None:
        """WhatsApp's id of an attempt without an answer; None if it cannot be found out."""
        engine, jid = self._parts.engine, self._record.identity.jid
        try:
            evidence = await engine.find_attempts(self.directory, [secret], jid=jid)
        except StoreFailed as error:
            self._log.error("attempt_not_traced", reason=error.message)
            return None
        return evidence.message_ids.get(secret)

    # --- decisions ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry out decisions until cancelled; then end the worker.

        An error ends the worker too; `run` may be called again then, and continues from there.
        """
        await self._life.run()

    async def _happened(self, incident: Incident, generation: int | None = None) -> None:
        """Let the machine take an incident, do what it decides, and record it.

        Args:
            generation: of the worker that it is about; None: whichever there is.
        """
        async with self._lock:
            taken = self._machine.take(incident, moment(), generation=generation)
            if taken is None:
                return
            if taken.state is not SessionState.PAIRING:
                self._intake.pairing.hide()
            self._life.do(taken.action)
            self._log.info(
                "session_state", state=str(taken.state), before=str(taken.before), cause=taken.words
            )
            self._changed.set()
            self._changed = trio.Event()
            # Whoever asked for it may be gone by now; that it happened is recorded all the same.
            with trio.CancelScope(shield=True):
                if taken.cause is SessionCause.LOGGED_OUT:
                    last = self._machine.generation - 1
                    self._life.drops_spool = self._intake.guard.is_foreign(last)
                    await self._record.identify(SessionIdentity())
                await self._log_step(taken)

    async def _log_step(self, taken: SessionStep) -> None:
        next_try = self._machine.next_try
        data = {
            "state": str(taken.state),
            "from": str(taken.before),
            "why": str(taken.cause),
            "cause": taken.words,
            "next_try_ms": next_try.wall_ms if next_try else None,
            "worker_pid": self.worker_pid if taken.state in ALIVE else None,
            "jid": self._record.identity.jid,
        }
        await self._parts.inbound.note(Draft(self.company, SESSION_STATE, data))

    # --- health ------------------------------------------------------------------------------

    async def check_health(self) -> None:
        """Ask the worker how it is, and have it replaced if `rules.session_health` says so."""
        await trio.to_thread.run_sync(self._life.files.look)
        machine = self._machine
        worker, generation, since = self._life.worker, machine.generation, machine.since
        answer = HealthAnswer()
        if worker is not None and self.state in ALIVE and self.state is not SessionState.STARTING:
            answer = await ask(worker, self._settings.health_deadline_s)
        if (generation, since) != (machine.generation, machine.since):
            answer = HealthAnswer()  # it was about another worker, or another state of it
        judgement = self.checkups.take(self._observe(answer), machine.generation, answer)
        if judgement.replace is not None:
            await self._happened(Incident(*judgement.replace), generation)

    def judgement(self) -> Judgement:
        """How the session is now, as far as the last check can tell."""
        machine = self._machine
        answer = self.checkups.answer_about(machine.generation, machine.since.steady_ms)
        return self.checkups.judge(self._observe(answer))

    def _observe(self, answer: HealthAnswer) -> Observation:
        machine = self._machine
        return Observation(
            wanted=self.wanted,
            state=machine.state,
            cause=machine.cause,
            since_ms=machine.since.steady_ms,
            down_since_ms=machine.down_since_ms,
            now_ms=steady_ms(),
            asked=answer.asked,
            socket_up=answer.socket_up,
            logged_in=answer.logged_in,
            files=self._life.files.trouble,
        )
