"""`daemon.health` and `daemon.metrics`: the health report and the metrics.

Callers that may read some companies only get those companies, and the daemon itself.
"""

from __future__ import annotations

import gzip

import trio

from whatsappd.api import daemon as api
from whatsappd.api.declaration import NoParams
from whatsappd.errors import TooLarge
from whatsappd.handlers.access import AccessControl
from whatsappd.monitoring.health_checks import HealthReport, SessionHealth
from whatsappd.monitoring.health_rounds import HealthRounds
from whatsappd.monitoring.scrape import CONTENT_TYPE, Scrape
from whatsappd.rpc.method import Call, Method
from whatsappd.wire.frames import MAX_MESSAGE

#: Leaves room for the frame around it.
_MAX_TEXT = MAX_MESSAGE - 1024
#: Of gzip: a twentieth of the size, and three times as fast as the default.
_LEVEL = 1


class MonitoringApi:
    def __init__(self, health: HealthRounds, scrape: Scrape, access: AccessControl) -> None:
        self._health_rounds = health
        self._scrape = scrape
        self._access = access

    def methods(self) -> list[Method]:
        return [
            Method(api.HEALTH, self._health),
            Method(api.METRICS, self._metrics),
        ]

    async def _health(self, call: Call, _params: NoParams) -> api.Health:
        companies = self._access.readable(call, "daemon.health")
        return shown_health(await self._health_rounds.report(companies))

    async def _metrics(self, call: Call, params: api.ReadMetrics) -> api.Metrics:
        companies = self._access.readable(call, "daemon.metrics")
        text = await self._scrape.text(companies)
        if params.gzip:
            body = await trio.to_thread.run_sync(gzip.compress, text.encode(), _LEVEL)
            return api.Metrics(content_type=CONTENT_TYPE, content_encoding="gzip", body=body)
        if len(text) > _MAX_TEXT:
            raise TooLarge(
                f"the metrics have {len(text)} bytes, more than one answer holds: ask for them "
                "with gzip: true",
                limit=_MAX_TEXT,
            )
        return api.Metrics(content_type=CONTENT_TYPE, text=text)


def shown_health(report: HealthReport) -> api.Health:
    return api.Health(
        healthy=report.healthy,
        checks=[api.HealthCheck(**check._asdict()) for check in report.checks],
        sessions={session.company: _shown(session) for session in report.sessions},
    )


def _shown(session: SessionHealth) -> api.SessionCheck:
    return api.SessionCheck(
        ok=session.judgement.ok,
        wanted=session.wanted,
        state=session.state,
        detail=session.judgement.detail,
        remedy=session.judgement.remedy,
        checked_ms=session.checked_ms,
        answered_ms=session.answered_ms,
        failures=session.failures,
    )
