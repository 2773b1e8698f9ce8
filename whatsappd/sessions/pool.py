"""All sessions of the host: one per company, made on demand, brought back at boot."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial

import structlog
import trio

from whatsappd.errors import StoreFailed, UnknownCompany, WorkerFailed, WorkerGone, WrongState
from whatsappd.model.message import OutboxState
from whatsappd.model.session import SessionState, SessionStatus
from whatsappd.rules.lifecycle import PARKED, start_refusal
from whatsappd.sessions.dispatcher import Dispatcher
from whatsappd.sessions.forkserver import ForkServer
from whatsappd.sessions.inbound import InboundLog
from whatsappd.sessions.pacing import Pacing, Shared
from whatsappd.sessions.process import reap_orphans
from whatsappd.sessions.session import Session
from whatsappd.sessions.settings import SessionSettings, WhatsAppAccess
from whatsappd.state import StateDirectory
from whatsappd.store.companies import Companies
from whatsappd.store.outbox import Outbox

log = structlog.get_logger()


class Pool:
    """Owns every session. `run` must be running for sessions to do anything."""

    def __init__(
        self,
        *,
        state: StateDirectory,
        fork_server: ForkServer,
        companies: Companies,
        inbound: InboundLog,
        outbox: Outbox,
        access: Callable[[], WhatsAppAccess],
        settings: SessionSettings,
        pacing: Shared,
        foreign_children: Callable[[], set[int]],
    ) -> None:
        self._state = state
        self._fork_server = fork_server
        self._companies = companies
        self._inbound = inbound
        self._outbox = outbox
        self._access = access
        self._settings = settings
        self._foreign_children = foreign_children
        self._shared_pacing = pacing
        pacing.contacts.on_new = self._touch
        self._pacing: dict[str, Pacing] = {}
        self._sessions: dict[str, Session] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._gone: dict[str, trio.Event] = {}
        self._nursery: trio.Nursery | None = None
        self._is_stopping = False
        # One at a time, so that a company is not made twice, or made while it is removed.
        self._membership = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Bring back the wanted sessions, then supervise until cancelled.

        `started` is called as soon as sessions can be asked for; bringing them back goes on
        meanwhile, a bounded number at a time, and none waits for another to connect.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            remembered = await self._companies.all()
            for company in remembered:
                await self._add(company.company)
            await self._recover({company.company for company in remembered if company.wanted})
            task_status.started()
            limiter = trio.CapacityLimiter(self._settings.start_parallel)
            for company in remembered:
                if company.wanted:
                    nursery.start_soon(self._bring_back, company.company, limiter)
            await trio.sleep_forever()

    async def _recover(self, wanted: set[str]) -> None:
        """Rows whose attempt the last daemon's end cut off: the next worker of their company finds
        out what became of them; where none will be started, nobody can know."""
        for row, _secret in await self._outbox.interrupted():
            if row.company not in wanted and row.state is OutboxState.SENDING:
                await self._outbox.uncertain(row.id, "the daemon ended while it was being sent")

    def get(self, company: str) -> Session:
        """The session of a known company.

        Raises:
            UnknownCompany: it was never started, or was removed.
        """
        session = self._sessions.get(company)
        if session is None:
            raise UnknownCompany(
                f"company: {company!r} is unknown; `whatsappctl start {company}` creates it",
                company=company,
            )
        return session

    def sessions(self) -> list[Session]:
        """All sessions, by company."""
        return [self._sessions[company] for company in sorted(self._sessions)]

    def pacing(self, company: str) -> Pacing:
        """A company's limits. Raises UnknownCompany."""
        self.get(company)
        return self._pacing[company]

    def limits_changed(self) -> None:
        """The defaults of the limits are other ones now: what waits is looked at again."""
        for pacing in self._pacing.values():
            pacing.touch()

    def _touch(self, company: str) -> None:
        if company in self._pacing:
            self._pacing[company].touch()

    def statuses(self, among: Collection[str] | None = None) -> list[SessionStatus]:
        """Of all sessions, or of those of the companies `among` that exist, by company."""
        return [
            self.status(company)
            for company in sorted(self._sessions)
            if among is None or company in among
        ]

    def count_workers(self) -> int:
        """Sessions that have a process at present."""
        return sum(session.status().worker_pid is not None for session in self._sessions.values())

    def describe(self) -> str:
        """All sessions in one line, for `systemctl status`."""
        states = Counter(session.state.value for session in self._sessions.values())
        if not states:
            return "no companies yet"
        connected = states.pop("connected", 0)
        others = "".join(f", {count} {state}" for state, count in sorted(states.items()))
        return f"{connected} of {len(self._sessions)} companies connected{others}"

    def status(self, company: str) -> SessionStatus:
        """Raises UnknownCompany."""
        return self.get(company).status(
            queued=self._outbox.counts(company).get(OutboxState.QUEUED, 0),
            outreach_paused_until_ms=self._pacing[company].paused_until_ms,
        )

    async def start(self, company: str, *, take_over: bool) -> Session:
        """Start a company's session, and remember that it is wanted. Makes the company if new.

        Raises:
            WrongState: see `Session.start`.
            StoreFailed: the wish cannot be stored, so nothing was started.
        """
        # The wish and the deed belong together, also if whoever asked hangs up meanwhile.
        with trio.CancelScope(shield=True):
            async with self._membership:
                await self._companies.put_wanted(company, True)
                session = self._sessions.get(company) or await self._add(company)
            session.wanted = True
            await session.start(take_over=take_over)
        return session

    async def stop(self, company: str) -> Session:
        """Stop a session, and remember that; returns when its process is gone."""
        session = self.get(company)
        with trio.CancelScope(shield=True):
            await self._want(session, False)
            await session.begin_stop()
        await session.stop()
        return session

    async def restart(self, company: str) -> Session:
        """Stop and start.

        Raises:
            WrongState: the account was taken over by another process; see `Session.start`.
        """
        session = self.get(company)
        refusal = start_refusal(session.state)
        if refusal:
            raise WrongState(f"{company}: {refusal}", company=company, state=session.state)
        # The company must not stay down because whoever asked hangs up in between.
        with trio.CancelScope(shield=True):
            await session.stop()
            await self.start(company, take_over=False)
        return session

    async def logout(self, company: str) -> Session:
        session = self.get(company)
        # Once it is unlinked it must not be brought back, also if whoever asked hangs up meanwhile.
        with trio.CancelScope(shield=True):
            await session.begin_logout()
            await self._want(session, False)
        await session.settled()
        return session

    async def remove(self, company: str, *, force: bool) -> None:
        """Unlink the account, stop, and delete everything the company has here.

        Raises:
            WrongState: it is linked, and WhatsApp cannot be told just now; `force` deletes anyway,
                and the phone goes on listing the device.
        """
        session = self.get(company)
        # Half of it gone would be neither a company nor none, if whoever asked hangs up meanwhile.
        # So nothing in it may wait for what only a session that runs would do.
        with trio.CancelScope(shield=True):
            await self._remove(session, force=force)
        log.info("company_removed", company=company)

    async def _remove(self, session: Session, *, force: bool) -> None:
        company = session.company
        if session.jid is not None:
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
        async with self._membership:
            if self.get(company) is not session:
                raise UnknownCompany(f"{company} was removed, and made anew", company=company)
            await session.begin_stop()  # somebody may have started it meanwhile
            await self._delete(session)

    async def _delete(self, session: Session) -> None:
        """Delete what a stopped company has here; if that fails, the company is as it was before,
        but for what is deleted, and can be removed again."""
        company, pacing = session.company, self._pacing[session.company]
        self._scopes[company].cancel()
        await self._gone[company].wait()
        try:
            await self._abandon_messages(company)
            # The account's keys first: a company of the same name must never find them.
            directory = self._state.company(company)
            if directory.exists():
                await trio.to_thread.run_sync(shutil.rmtree, directory)
            await self._shared_pacing.contacts.remove_company(company)
            await self._companies.remove(company)
        except BaseException:
            self._begin_supervising(session, pacing)
            raise
        for of_companies in (self._sessions, self._pacing, self._scopes, self._gone):
            del of_companies[company]

    async def _abandon_messages(self, company: str) -> None:
        """What is queued must not go out from another account that gets the same name one day."""
        reason = "the company was removed"
        await self._outbox.cancel_queued(company, reason)
        for row, _secret in await self._outbox.interrupted(company):
            await self._outbox.untraceable(row.id, reason)
        await self._outbox.cancel_queued(company, reason)  # on_uncertain=resend queues again

    async def shut_down(self) -> None:
        """Stop all sessions at once, for the daemon's end: they stay wanted."""
        self._is_stopping = True
        async with trio.open_nursery() as nursery:
            for session in self._sessions.values():
                if session.state not in PARKED:
                    nursery.start_soon(partial(session.stop, words="the daemon is stopping"))

    async def _want(self, session: Session, wanted: bool) -> None:
        await self._companies.put_wanted(session.company, wanted)
        session.wanted = wanted

    async def _add(self, company: str) -> Session:
        session = Session(
            company,
            directory=self._state.company(company),
            fork_server=self._fork_server,
            companies=self._companies,
            inbound=self._inbound,
            outbox=self._outbox,
            access=self._access,
            settings=self._settings,
        )
        remembered = await self._companies.get(company)
        pacing = Pacing(company, self._shared_pacing)
        await pacing.load()
        session.wanted = remembered.wanted
        session.jid = remembered.jid
        session.lid = remembered.lid
        session.push_name = remembered.push_name
        session.last_inbound_ms = await self._inbound.last_ms(company)
        self._pacing[company] = pacing
        self._sessions[company] = session
        self._begin_supervising(session, pacing)
        return session

    def _begin_supervising(self, session: Session, pacing: Pacing) -> None:
        assert self._nursery is not None
        scope = self._scopes[session.company] = trio.CancelScope()
        gone = self._gone[session.company] = trio.Event()
        self._nursery.start_soon(self._supervise, session, pacing, scope, gone)

    async def _supervise(
        self, session: Session, pacing: Pacing, scope: trio.CancelScope, gone: trio.Event
    ) -> None:
        try:
            with scope:
                while True:
                    try:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(
                                Dispatcher(session, self._outbox, pacing, self._settings).run
                            )
                            await session.run()
                    except Exception as error:
                        log.error("session_defect", company=session.company, exc_info=error)
                        await session.fail("a defect in whatsappd; the log has its traceback")
        finally:
            gone.set()

    async def _bring_back(self, company: str, limiter: trio.CapacityLimiter) -> None:
        await trio.sleep(random.random() * self._settings.start_jitter_s)
        async with limiter:
            if self._is_stopping:
                return
            try:
                session = await self.start(company, take_over=False)
            except (WrongState, StoreFailed) as error:
                log.error("session_not_brought_back", company=company, reason=error.message)
                return
            # The place is kept while the login costs the host something, and no longer: a company
            # that hangs must not hold up the others.
            with trio.move_on_after(self._settings.start_slot_s):
                while session.state in (SessionState.STARTING, SessionState.CONNECTING):
                    await session.wait_changed()

    async def check_health(self) -> None:
        """One round: ask every session's worker how it is, all at once; reap stray children.

        Takes no longer than the slowest worker may.
        """
        async with trio.open_nursery() as nursery:
            for session in self._sessions.values():
                nursery.start_soon(self._check_one, session)
        for pid in reap_orphans(self._known_children()):
            log.info("orphan_reaped", pid=pid)

    async def _check_one(self, session: Session) -> None:
        try:
            await session.check_health()
        except Exception as error:
            log.error("health_check_defect", company=session.company, exc_info=error)

    def _known_children(self) -> set[int]:
        known = self._foreign_children()
        known.update(
            pid for session in self._sessions.values() if (pid := session.status().worker_pid)
        )
        if self._fork_server.pid is not None:
            known.add(self._fork_server.pid)
        return known
