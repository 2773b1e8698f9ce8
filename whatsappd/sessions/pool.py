"""All sessions of this host: makes one per company, starts the wanted ones again at boot."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial

import structlog
import trio

from whatsappd.errors import StoreFailed, UnknownCompany, WorkerFailed, WorkerGone, WrongState
from whatsappd.model.audit import AuditNote
from whatsappd.model.message import OutboxState
from whatsappd.model.session import SessionState, SessionStatus
from whatsappd.rules.account_binding import QueuedMessages, Standing, bound_account
from whatsappd.rules.lifecycle import PARKED, start_refusal
from whatsappd.sessions.company_tasks import CompanyLocks, CompanyTasks
from whatsappd.sessions.handover import give_up_orphans
from whatsappd.sessions.pacing import Pacing, PacingParts
from whatsappd.sessions.removed_companies import RemovedCompanies
from whatsappd.sessions.session import CompanySession
from whatsappd.sessions.session_parts import SessionParts
from whatsappd.state_directory import StateDirectory
from whatsappd.store.port import Removals
from whatsappd.supervision import Supervision

log = structlog.get_logger()


class Pool:
    """Owns every session. Call `load` once; `run` must be running for sessions to do anything."""

    def __init__(
        self,
        *,
        state: StateDirectory,
        sessions: SessionParts,
        pacing: PacingParts,
        removals: Removals,
        foreign_children: Callable[[], set[int]],
        supervision: Supervision,
    ) -> None:
        self._state = state
        self._parts = sessions
        self._companies = sessions.companies
        self._outbox = sessions.outbox
        self._settings = sessions.settings
        self._removals = removals
        self._foreign_children = foreign_children
        self._supervision = supervision
        self._shared_pacing = pacing
        pacing.store.acquaintances.follow(self._touch)
        self._by_company: dict[str, CompanyTasks] = {}
        self._locks = CompanyLocks()
        self._removed = RemovedCompanies(
            removals, self._locks, exists=self._by_company.__contains__
        )
        self._nursery: trio.Nursery | None = None  # while `run` is running
        self._is_stopping = False

    async def load(self) -> None:
        """Make a session for each company in the store.

        Raises:
            StoreFailed: the store cannot be read.
        """
        remembered = await self._companies.all()
        for company in remembered:
            await self._add(company.company)
        wanted = {company.company for company in remembered if company.wanted}
        await give_up_orphans(self._outbox.handovers, wanted)

    async def run(self) -> None:
        """Supervise the sessions until cancelled, and start those that are wanted.

        A bounded number is started at a time, and none waits for another to connect. After an
        error `run` may be called again, and the sessions continue where they were.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._removed.run)
            try:
                limiter = trio.CapacityLimiter(self._settings.start_parallel)
                for tasks in self._all():
                    tasks.begin(nursery)
                    session = tasks.session
                    if session.wanted and session.state is SessionState.STOPPED:
                        nursery.start_soon(
                            partial(
                                self._supervision.keep,
                                "boot",
                                partial(self._bring_back, session, limiter),
                                company=session.company,
                            )
                        )
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def get(self, company: str) -> CompanySession:
        """The session of a known company.

        Raises:
            UnknownCompany: it was never started, or was removed.
        """
        return self._tasks(company).session

    def sessions(self) -> list[CompanySession]:
        """All sessions, by company."""
        return [tasks.session for tasks in self._all()]

    def pacing(self, company: str) -> Pacing:
        """A company's limits. Raises UnknownCompany."""
        return self._tasks(company).pacing

    def _tasks(self, company: str) -> CompanyTasks:
        tasks = self._by_company.get(company)
        if tasks is None:
            raise UnknownCompany(
                f"company: {company!r} is unknown; `whatsappctl start {company}` creates it",
                company=company,
            )
        return tasks

    def _all(self) -> list[CompanyTasks]:
        return [self._by_company[company] for company in sorted(self._by_company)]

    def _is_known(self, session: CompanySession) -> bool:
        """Whether it is still the session of its company, which was not removed meanwhile."""
        tasks = self._by_company.get(session.company)
        return tasks is not None and tasks.session is session

    async def shift(self, by_ms: int) -> None:
        """The clock was set by so much; see `sessions.clock_watch`."""
        self._shared_pacing.limiter.shift(by_ms)
        for pacing in [tasks.pacing for tasks in self._all()]:
            try:
                await pacing.shift(by_ms)
            except (StoreFailed, UnknownCompany) as error:
                log.warning("pause_not_moved", company=pacing.company, reason=error.message)
            pacing.touch()

    def limits_changed(self) -> None:
        """The defaults of the limits are other ones now: what waits is looked at again."""
        for tasks in self._by_company.values():
            tasks.pacing.touch()

    def _touch(self, company: str) -> None:
        if company in self._by_company:
            self._by_company[company].pacing.touch()

    def statuses(self, among: Collection[str] | None = None) -> list[SessionStatus]:
        """Of all sessions, or of those of the companies `among` that exist, by company."""
        return [
            self.status(company)
            for company in sorted(self._by_company)
            if among is None or company in among
        ]

    def count_workers(self) -> int:
        """Sessions that have a process at present."""
        return sum(session.worker_pid is not None for session in self.sessions())

    def describe(self) -> str:
        """All sessions in one line, for `systemctl status`."""
        states = Counter(session.state.value for session in self.sessions())
        if not states:
            return "no companies yet"
        connected = states.pop("connected", 0)
        others = "".join(f", {count} {state}" for state, count in sorted(states.items()))
        return f"{connected} of {len(self._by_company)} companies connected{others}"

    def status(self, company: str) -> SessionStatus:
        """Raises UnknownCompany."""
        tasks = self._tasks(company)
        return tasks.session.status(
            queued=self._outbox.view.counts(company).get(OutboxState.QUEUED, 0),
            outreach_paused_until_ms=tasks.pacing.paused_until_ms,
        )

    async def start(
        self,
        company: str,
        *,
        take_over: bool,
        new_account: bool = False,
        queued: QueuedMessages = QueuedMessages.CANCEL,
    ) -> CompanySession:
        """Start a company's session, and remember that it is wanted. Makes the company if new.

        Args:
            new_account: it may be linked, or is held because it is linked, with another number than
                before.
            queued: what becomes of messages that wait and were written for the number before.

        Raises:
            WrongState: see `CompanySession.start`; or `new_account` and the company is linked with
                its own account, or with another company's.
            UnknownCompany: it was removed meanwhile.
            StoreFailed: the wish cannot be stored, so nothing was started.
        """
        return await self._start(
            company,
            self.get(company) if company in self._by_company else None,
            take_over=take_over,
            leave=queued if new_account else None,
        )

    async def _start(
        self,
        company: str,
        known: CompanySession | None,
        *,
        take_over: bool,
        leave: QueuedMessages | None = None,
    ) -> CompanySession:
        """Start `known`, the company's session; None: the company is yet to be made.

        Args:
            leave: it leaves its account; what becomes of what waits. None: it keeps it.
        """
        # The wish and the deed belong together, also if whoever asked hangs up meanwhile.
        with trio.CancelScope(shield=True):
            async with self._locks.alone(company):
                if known is not None and not self._is_known(known):
                    raise _removed_meanwhile(company)
                if leave is not None and known is not None:
                    await self._leave_account(known, leave)
                if known is None and company in await self._removals.pending():
                    await self._removals.finish(company)
                await self._companies.put_wanted(company, True)
                session = known or await self._session(company)
                await session.start(take_over=take_over)
        return session

    async def _leave_account(self, session: CompanySession, queued: QueuedMessages) -> None:
        """End the company's tie to its account, so that it may be linked with another one.

        First what waits is cancelled, if it is to be: whatever interrupts this, nothing that was
        written for the one account leaves from the other.
        """
        company = session.company
        if session.is_linked:
            linked = bound_account(session.identity.jid, session.identity.lid)
            claim = await self._companies.look_at_account(company, linked)
            if claim.standing is Standing.OURS:
                raise WrongState(
                    f"{company} is linked with its own account ({session.account}): "
                    f"`whatsappctl logout {company}` first, then link the other phone",
                    company=company,
                    state=str(session.state),
                )
            if claim.standing is Standing.TAKEN:
                raise WrongState(
                    f"{company} is linked with the account of company {claim.owner}: "
                    f"`whatsappctl logout` one of the two",
                    company=company,
                    state=str(session.state),
                )
        if queued is QueuedMessages.CANCEL:
            await self._abandon_messages(company, "the company was linked with another number")
        await session.leave_account()

    async def stop(self, company: str) -> CompanySession:
        """Stop a session, and remember that; returns when its process is gone."""
        session = self.get(company)
        with trio.CancelScope(shield=True):
            async with self._locks.alone(company):
                if not self._is_known(session):
                    raise _removed_meanwhile(company)
                await session.unwant()
                await session.begin_stop()
        await session.settled()
        return session

    async def restart(self, company: str) -> CompanySession:
        """Stop a session and start it again.

        Raises:
            WrongState: the account was taken over by another process; see `CompanySession.start`.
        """
        session = self.get(company)
        refusal = start_refusal(session.state)
        if refusal:
            raise WrongState(f"{company}: {refusal}", company=company, state=session.state)
        # The company must not stay down because whoever asked hangs up in between.
        with trio.CancelScope(shield=True):
            await session.stop()
            await self._start(company, session, take_over=False)
        return session

    async def logout(self, company: str) -> CompanySession:
        """Unlink the device at WhatsApp, stop, and give up the account: others may have it.

        A held session is unlinked from the account that is not the company's; it keeps its own. One
        that is not linked gives up the account that it was linked with.

        Raises:
            WrongState: it is linked, and WhatsApp cannot be told just now.
        """
        session = self.get(company)
        # Once it is unlinked it must not be brought back, also if whoever asked hangs up meanwhile.
        with trio.CancelScope(shield=True):
            was_held = session.state is SessionState.HELD
            if session.is_linked or session.account is None:
                await session.begin_logout()
            else:
                await session.begin_stop()
            async with self._locks.alone(company):
                if self.get(company) is session:
                    await session.unwant()
                    if not was_held:
                        await session.give_account_up()
        await session.settled()
        return session

    async def remove(self, company: str, *, force: bool, note: AuditNote | None = None) -> None:
        """Unlink the account, stop, and delete everything the company has here.

        Args:
            note: writes the audit trail's line in the transaction that makes it none any more.

        Raises:
            WrongState: it is linked, and WhatsApp cannot be told just now; `force` deletes anyway,
                and the phone goes on listing the device.
        """
        session = self.get(company)
        # Half of it gone would be neither a company nor none, if whoever asked hangs up meanwhile.
        # So nothing in it may wait for what only a session that runs would do.
        with trio.CancelScope(shield=True):
            await self._remove(session, force=force, note=note)
        # It is none any more. What is left may take a while, and goes whoever waits for it.
        await self._removed.finish(company)

    async def _remove(
        self, session: CompanySession, *, force: bool, note: AuditNote | None
    ) -> None:
        company = session.company
        if session.is_linked:
            try:
                await session.begin_logout()
            except (WrongState, WorkerFailed, WorkerGone) as error:
                if not force:
                    raise WrongState(
                        f"{company} is linked and cannot be unlinked now: {error.message}; connect "
                        "it first, or remove it with --force and unlink it on the phone",
                        company=company,
                    ) from error
        # Before the others wait for it: they may not be held up by the time that this takes.
        await session.stop()
        async with self._locks.alone(company):
            if not self._is_known(session):
                raise _removed_meanwhile(company)
            await session.begin_stop()  # somebody may have started it meanwhile
            await self._delete(session, note)

    async def _delete(self, session: CompanySession, note: AuditNote | None) -> None:
        """Delete what a stopped company has here.

        If that fails before it has begun, the company is as it was before, but for messages that
        were cancelled. After that it is none any more, and what is left is deleted later: when a
        company of that name is started, or the daemon starts.
        """
        company = session.company
        tasks = self._by_company[company]
        await tasks.end()
        try:
            await self._abandon_messages(company, "the company was removed")
            await self._removals.begin(company, note)
        except BaseException:
            self._begin(tasks)
            raise
        self._supervision.forget(company)
        del self._by_company[company]
        self._shared_pacing.limiter.forget(company)

    async def _abandon_messages(self, company: str, reason: str) -> None:
        """Cancel the queue of a removed company: a later company of that name must not send it."""
        await self._outbox.maintenance.cancel_queued(company, reason)
        for row, *_ in await self._outbox.handovers.interrupted(company):
            await self._outbox.handovers.mark_untraceable(row.id, reason)
        await self._outbox.maintenance.cancel_queued(
            company, reason
        )  # on_uncertain=resend queues again

    async def shut_down(self) -> None:
        """Stop all sessions at once, for the daemon's end: they stay wanted."""
        self._is_stopping = True
        async with trio.open_nursery() as nursery:
            for session in self.sessions():
                if session.state not in PARKED:
                    nursery.start_soon(partial(session.stop, words="the daemon is stopping"))

    def cut_off(self) -> list[str]:
        """End the workers that are left without waiting for them; whose they were.

        What they brought and we did not take is lost.
        """
        return [session.company for session in self.sessions() if session.kill_worker()]

    async def _session(self, company: str) -> CompanySession:
        """The session of a company that exists, perhaps since just now."""
        if company not in self._by_company:
            await self._add(company)
        return self.get(company)

    async def _add(self, company: str) -> None:
        known = await self._companies.get(company)
        pacing = Pacing(company, self._shared_pacing)
        await pacing.load()
        session = CompanySession(
            known,
            directory=self._state.company(company),
            parts=self._parts,
            last_inbound_ms=await self._parts.inbound.last_ms(company),
        )
        tasks = CompanyTasks(session, pacing, self._parts, self._supervision)
        self._by_company[company] = tasks
        self._begin(tasks)

    def _begin(self, tasks: CompanyTasks) -> None:
        if self._nursery is not None:  # else `run` does it, when it begins anew
            tasks.begin(self._nursery)

    async def _bring_back(self, session: CompanySession, limiter: trio.CapacityLimiter) -> None:
        """Start a session that was wanted when the last daemon ended."""
        company = session.company
        await trio.sleep(random.random() * self._settings.start_jitter_s)
        async with limiter:
            async with self._locks.alone(company):
                if self._is_stopping or not self._is_known(session) or not session.wanted:
                    return
                try:
                    await session.start(take_over=False)
                except WrongState as error:
                    log.error("session_not_brought_back", company=company, reason=error.message)
                    return
            # The place is kept while the login costs the host something, and no longer: a company
            # that hangs must not hold up the others.
            with trio.move_on_after(self._settings.start_slot_s):
                while session.state in (SessionState.STARTING, SessionState.CONNECTING):
                    await session.wait_changed()

    async def check_health(self) -> None:
        """One round: ask every session's worker how it is, all at once.

        Takes no longer than the slowest worker may.
        """
        async with trio.open_nursery() as nursery:
            for session in self.sessions():
                nursery.start_soon(
                    partial(
                        self._supervision.attempt,
                        "health_check",
                        session.check_health,
                        company=session.company,
                    )
                )

    def children(self) -> set[int]:
        """The pids of the daemon's processes: workers, fork server, sandbox."""
        known = self._foreign_children()
        known.update(pid for session in self.sessions() if (pid := session.worker_pid))
        engine_pid = self._parts.engine.status.pid
        if engine_pid is not None:
            known.add(engine_pid)
        return known


def _removed_meanwhile(company: str) -> UnknownCompany:
    return UnknownCompany(
        f"company: {company!r} was removed meanwhile; `whatsappctl start {company}` makes it anew",
        company=company,
    )
