"""`session.*`: start, stop and look at companies' sessions."""

from __future__ import annotations

from typing import Any

import msgspec

from whatsappd.api.params import CompanyId, OneCompany, Params
from whatsappd.errors import WrongState
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.auditing import note
from whatsappd.handlers.events import EventsApi
from whatsappd.limits.settings import LIMIT_NAMES, check_limit
from whatsappd.model.company import validate_company
from whatsappd.rpc.method import Call, Concerns, Method, NoParams
from whatsappd.rules.binding import QueuedMessages
from whatsappd.sessions.pool import Pool


class StartParams(Params):
    company: CompanyId
    watch: bool = False
    take_over: bool = False
    new_account: bool = False
    queued: QueuedMessages = QueuedMessages.CANCEL


Limit = int | None | msgspec.UnsetType


class ConfigureParams(Params):
    company: CompanyId
    per_minute: Limit = msgspec.UNSET
    per_phone_per_minute: Limit = msgspec.UNSET
    cold_per_hour: Limit = msgspec.UNSET
    cold_per_day: Limit = msgspec.UNSET


class RemoveParams(Params):
    company: CompanyId
    force: bool = False


class SessionsApi:
    def __init__(self, pool: Pool, events: EventsApi, access: AccessControl) -> None:
        self._pool = pool
        self._access = access
        self._events = events

    def methods(self) -> list[Method]:
        return [
            Method("session.start", StartParams, self._start, "Start a session.", writes=True),
            Method("session.stop", OneCompany, self._stop, "Stop a session.", writes=True),
            Method("session.restart", OneCompany, self._restart, "Stop and start.", writes=True),
            Method("session.logout", OneCompany, self._logout, "Unlink the device.", writes=True),
            Method("session.remove", RemoveParams, self._remove, "Unlink and delete.", writes=True),
            Method(
                "session.list", NoParams, self._list, "All sessions.",
                writes=False, concerns=Concerns.SEVERAL,
            ),
            Method("session.status", OneCompany, self._status, "One session.", writes=False),
            Method(
                "session.configure", ConfigureParams, self._configure, "Set limits.", writes=True
            ),
            # Whoever scans it owns the account's messages: it is for those who may link, and each
            # look at it is in the audit trail.
            Method("session.qr", OneCompany, self._qr, "The QR code to scan now.", writes=True),
        ]  # fmt: skip

    async def _start(self, call: Call, params: StartParams) -> dict[str, Any]:
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
        status = self._wire(call, company)
        if params.watch:
            status["subscription"] = self._events.watch(call, company, after=before)
        return status

    async def _stop(self, call: Call, params: OneCompany) -> dict[str, Any]:
        await self._pool.stop(validate_company(params.company))
        return self._wire(call, params.company)

    async def _restart(self, call: Call, params: OneCompany) -> dict[str, Any]:
        await self._pool.restart(validate_company(params.company))
        return self._wire(call, params.company)

    async def _logout(self, call: Call, params: OneCompany) -> dict[str, Any]:
        await self._pool.logout(validate_company(params.company))
        return self._wire(call, params.company)

    async def _remove(self, call: Call, params: RemoveParams) -> dict[str, Any]:
        company = validate_company(params.company)
        noted = note(call, "session.remove", company)
        await self._pool.remove(company, force=params.force, note=noted)
        return {"company": company, "removed": True}

    def _list(self, call: Call, _params: NoParams) -> dict[str, Any]:
        readable = self._access.readable(call, "session.list")
        return {
            "sessions": [
                status.as_wire(codes=self._access.may_link(call, status.company))
                for status in self._pool.statuses(readable)
            ]
        }

    def _status(self, call: Call, params: OneCompany) -> dict[str, Any]:
        return self._wire(call, validate_company(params.company))

    async def _configure(self, _call: Call, params: ConfigureParams) -> dict[str, Any]:
        """Change a company's limits: a number sets one (0: off), nil gives it its default again."""
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
        return {"company": params.company, "limits": limits.as_wire()}

    def _qr(self, _call: Call, params: OneCompany) -> dict[str, Any]:
        session = self._pool.get(validate_company(params.company))
        shown = session.pairing.code
        if shown is None:
            raise WrongState(
                f"{session.company} shows no QR code: it is {session.state} ({session.cause})",
                company=session.company,
                state=str(session.state),
            )
        return {
            "company": session.company,
            "qr": shown.qr,
            "since_ms": shown.since_ms,
            "expires_ms": shown.expires_ms,
        }

    def _wire(self, call: Call, company: str) -> dict[str, Any]:
        return self._pool.status(company).as_wire(codes=self._access.may_link(call, company))
