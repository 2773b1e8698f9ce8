"""`daemon.health` and `daemon.metrics`: whether all is well, and the figures.

Callers bound to some companies are told about those only, and about the daemon itself.
"""

from __future__ import annotations

import gzip
from typing import Any

import trio

from whatsappd.api.params import Params
from whatsappd.errors import TooLarge
from whatsappd.handlers.access import AccessControl
from whatsappd.metrics import CONTENT_TYPE
from whatsappd.monitoring.monitor import Monitor
from whatsappd.monitoring.scrape import Scrape
from whatsappd.rpc.method import Call, Concerns, Method, NoParams
from whatsappd.wire.frames import MAX_MESSAGE

#: Leaves room for the frame around it.
_MAX_TEXT = MAX_MESSAGE - 1024
#: Of gzip: a twentieth of the size, and three times as fast as the default.
_LEVEL = 1


class MetricsParams(Params):
    gzip: bool = False


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
                "daemon.metrics", MetricsParams, self._metrics, "All figures, as Prometheus text.",
                writes=False, concerns=Concerns.SEVERAL,
            ),
        ]  # fmt: skip

    async def _health(self, call: Call, _params: NoParams) -> dict[str, Any]:
        companies = self._access.readable(call, "daemon.health")
        return (await self._monitor.report(companies)).as_wire()

    async def _metrics(self, call: Call, params: MetricsParams) -> dict[str, Any]:
        """`text`, or with `gzip` the same compressed, as `body`."""
        companies = self._access.readable(call, "daemon.metrics")
        text = await self._scrape.text(companies)
        if params.gzip:
            body = await trio.to_thread.run_sync(gzip.compress, text.encode(), _LEVEL)
            return {"content_type": CONTENT_TYPE, "content_encoding": "gzip", "body": body}
        if len(text) > _MAX_TEXT:
            raise TooLarge(
                f"the metrics have {len(text)} bytes, more than one answer holds: ask for them "
                "with gzip: true",
                limit=_MAX_TEXT,
            )
        return {"content_type": CONTENT_TYPE, "text": text}
