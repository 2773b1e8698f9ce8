"""`daemon.health` and `daemon.metrics`: whether all is well, and the figures.

Callers bound to some companies are told about those only, and about the daemon itself.
"""

from __future__ import annotations

from typing import Any

from whatsappd.api.access import AccessControl
from whatsappd.metrics import CONTENT_TYPE
from whatsappd.monitoring.monitor import Monitor
from whatsappd.monitoring.scrape import Scrape
from whatsappd.rpc.method import Call, Concerns, Method, NoParams


class MonitoringApi:
    def __init__(self, monitor: Monitor, scrape: Scrape, access: AccessControl) -> None:
        self._monitor = monitor
        self._scrape = scrape
        self._access = access

    def methods(self) -> list[Method]:
        return [
            Method(
                "daemon.health", NoParams, self._health, "Whether all is well, and what to do.",
                writes=False, concerns=Concerns.SEVERAL,
            ),
            Method(
                "daemon.metrics", NoParams, self._metrics, "All figures, as Prometheus text.",
                writes=False, concerns=Concerns.SEVERAL,
            ),
        ]  # fmt: skip

    async def _health(self, call: Call, _params: NoParams) -> dict[str, Any]:
        companies = self._access.readable(call, "daemon.health")
        return (await self._monitor.report(companies)).as_wire()

    async def _metrics(self, call: Call, _params: NoParams) -> dict[str, Any]:
        companies = self._access.readable(call, "daemon.metrics")
        return {"content_type": CONTENT_TYPE, "text": await self._scrape.text(companies)}
