"""The routes for health and metrics: `/v1/health`, `/v1/metrics`, `/livez` and `/readyz`."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec
import trio

from whatsappd.api import daemon as api
from whatsappd.api.daemon import Health, HealthCheck
from whatsappd.api.declaration import Declaration, NoParams, Params, Result
from whatsappd.gateway.answers import HttpAnswer, as_json
from whatsappd.gateway.auth import READ
from whatsappd.gateway.problem_details import HttpError
from whatsappd.gateway.requests import RoutedRequest
from whatsappd.gateway.routing import Possible, Routes
from whatsappd.supervision import Supervised, summary

routes = Routes("system")

Nothing = RoutedRequest[NoParams, NoParams]
P = TypeVar("P", bound=Params)
R = TypeVar("R", bound=Result)


class Liveness(Result):
    gateway: Literal["ok"]
    daemon: Literal["ok", "away"]


class Readiness(Result):
    ready: bool
    daemon: Literal["ok", "away"]


async def _about_all(asked: Nothing, method: Declaration[P, R], params: P) -> R:
    """What concerns all companies is not for keys that are bound to some."""
    if asked.identity.companies is not None:
        raise HttpError(403, "denied", "this key is bound to companies; this is about all of them")
    link = asked.shared.link
    if link.is_up and method.name not in link.methods:
        raise HttpError(501, "not_implemented", f"this daemon has no {method.name}: upgrade it")
    return await asked.call(method, params)


@routes.route("GET", "/v1/health", "How the daemon and its sessions are", scope=READ,
              answers=Health)  # fmt: skip
async def get_health(asked: Nothing) -> Health:
    """What `daemon.health` of the RPC answers, and a check of the gateway's own tasks. For load
    balancers there is `/livez`."""
    found = await _about_all(asked, api.HEALTH, NoParams())
    ok, detail, remedy = summary(asked.shared.supervision.tasks())
    found.checks.append(HealthCheck(name="gateway_tasks", ok=ok, detail=detail, remedy=remedy))
    found.healthy = found.healthy and ok
    return found


@routes.route("GET", "/v1/metrics", "Metrics, for Prometheus", scope=READ,
              answers={200: Possible(None, "All figures.", ("text/plain",))})  # fmt: skip
async def get_metrics(asked: Nothing) -> HttpAnswer:
    # Compressed, because with many companies they are larger than an answer may be.
    found = await _about_all(asked, api.METRICS, api.ReadMetrics(gzip=True))
    own = _own_metrics(asked.shared.supervision.tasks())
    packed = b"" if found.body is msgspec.UNSET else found.body
    body = await trio.to_thread.run_sync(lambda: gzip.decompress(packed) + own.encode())
    headers = {"vary": "Accept-Encoding"}
    if "gzip" in asked.request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        body = await trio.to_thread.run_sync(gzip.compress, body, 1)
    return HttpAnswer(body, media_type=found.content_type, headers=headers)


def _own_metrics(tasks: Sequence[Supervised]) -> str:
    """Of the gateway's own tasks, as Prometheus text; their names are ours and need no quoting."""
    name = "whatsappd_gateway_task_failures_total"
    lines = [
        f"# HELP {name} Errors that ended a task of the gateway, after which it began anew.",
        f"# TYPE {name} counter",
        *(f'{name}{{task="{task.name}"}} {task.failures}' for task in tasks),
    ]
    return "\n".join(lines) + "\n"


@routes.route("GET", "/livez", "Whether the gateway lives (no key needed)", scope=None,
              answers=Liveness)  # fmt: skip
async def get_live(asked: Nothing) -> Liveness:
    """200 as long as the gateway itself works, which is what a supervisor wants to know."""
    return Liveness(gateway="ok", daemon="ok" if asked.shared.link.is_up else "away")


@routes.route(
    "GET",
    "/readyz",
    "Whether requests can be served (no key needed)",
    scope=None,
    answers={
        200: Possible(Readiness, "They can."),
        503: Possible(Readiness, "The daemon does not answer."),
    },
)
async def get_ready(asked: Nothing) -> HttpAnswer:
    """200 if the daemon answers, else 503: what a load balancer wants to know."""
    if asked.shared.link.is_up:
        return as_json(Readiness(ready=True, daemon="ok"))
    away = Readiness(ready=False, daemon="away")
    return as_json(away, status=503, headers={"retry-after": "1"})
