"""`session.*`: start, stop and look at companies' sessions."""

from __future__ import annotations

import msgspec

from whatsappd.api import sessions as api
from whatsappd.api.declaration import NoParams
from whatsappd.api.sessions import SessionInfo
from whatsappd.api.types import OneCompany
from whatsappd.errors import WrongState
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.auditing import note
from whatsappd.handlers.events import EventsApi
from whatsappd.limits.settings import LIMIT_NAMES, check_limit
from whatsappd.model.company import validate_company
from whatsappd.model.session import SessionStatus
from whatsappd.rpc.method import Call, Method
from whatsappd.sessions.pool import Pool


class SessionsApi:
    def __init__(self, pool: Pool, events: EventsApi, access: AccessControl) -> None:
        self._pool = pool
        self._access = access
        self._events = events

    def methods(self) -> list[Method]:
        return [
            Method(api.START, self._start),
            Method(api.STOP, self._stop),
            Method(api.RESTART, self._restart),
            Method(api.LOGOUT, self._logout),
            Method(api.REMOVE, self._remove),
            Method(api.LIST, self._list),
            Method(api.STATUS, self._status),
            Method(api.CONFIGURE, self._configure),
            Method(api.QR, self._qr),
        ]

    async def _start(self, call: Call, params: api.StartSession) -> SessionInfo:
        company = validate_company(params.company)
        if params.watch:
            self._events.check_room(call)
        # The place in the log before anything happens: a watcher misses nothing after it.
        before = self._events.last_seq
        await self._pool.start(
            company,
            take_over=params.take_over,
            new_account=params.new_account,
            queued=params.queued,
        )
        status = self._shown(call, company)
        if params.watch:
            status.subscription = self._events.watch(call, company, after=before)
        return status

    async def _stop(self, call: Call, params: OneCompany) -> SessionInfo:
        await self._pool.stop(validate_company(params.company))
        return self._shown(call, params.company)

    async def _restart(self, call: Call, params: OneCompany) -> SessionInfo:
        await self._pool.restart(validate_company(params.company))
        return self._shown(call, params.company)

    async def _logout(self, call: Call, params: OneCompany) -> SessionInfo:
        await self._pool.logout(validate_company(params.company))
        return self._shown(call, params.company)

    async def _remove(self, call: Call, params: api.RemoveSession) -> api.RemovedSession:
        company = validate_company(params.company)
        noted = note(call, "session.remove", company)
        await self._pool.remove(company, force=params.force, note=noted)
        return api.RemovedSession(company=company)

    def _list(self, call: Call, _params: NoParams) -> api.SessionList:
        readable = self._access.readable(call, "session.list")
        return api.SessionList(
            sessions=[
                shown_session(status, codes=self._access.may_link(call, status.company))
                for status in self._pool.statuses(readable)
            ]
        )

    def _status(self, call: Call, params: OneCompany) -> SessionInfo:
        return self._shown(call, validate_company(params.company))

    async def _configure(self, _call: Call, params: api.ConfigureSession) -> api.ConfiguredSession:
        pacing = self._pool.pacing(validate_company(params.company))
        changes = {
            name: value
            for name in LIMIT_NAMES
            if (value := getattr(params, name)) is not msgspec.UNSET
        }
        for name, value in changes.items():
            if value is not None:
                check_limit(name, value)
        limits = await pacing.configure(changes) if changes else pacing.limits
        return api.ConfiguredSession(
            company=params.company, limits=api.LimitsInForce(**limits.as_wire())
        )

    def _qr(self, _call: Call, params: OneCompany) -> api.ShownQrCode:
        session = self._pool.get(validate_company(params.company))
        shown = session.shown_code
        if shown is None:
            raise WrongState(
                f"{session.company} shows no QR code: it is {session.state} ({session.cause})",
                company=session.company,
                state=str(session.state),
            )
        return api.ShownQrCode(
            company=session.company,
            qr=shown.qr,
            since_ms=shown.since_ms,
            expires_ms=shown.expires_ms,
        )

    def _shown(self, call: Call, company: str) -> SessionInfo:
        return shown_session(self._pool.status(company), codes=self._access.may_link(call, company))


def shown_session(status: SessionStatus, *, codes: bool) -> SessionInfo:
    """A session as callers see it.

    Args:
        codes: whether to show the QR code. Whoever scans it gets the account's messages, so only
            callers who may link the company see it.
    """
    values = status._asdict()
    if not codes:
        values["qr"] = None
    return SessionInfo(**values, qr_shown=status.qr is not None)
