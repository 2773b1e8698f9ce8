"""Health, metrics, the OpenAPI document and its page: everything that is about no company."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Any

import trio
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from whatsappd.gateway.asking import Asking, Reading
from whatsappd.gateway.docs import CONTENT_SECURITY_POLICY, page
from whatsappd.gateway.json_answer import JsonAnswer
from whatsappd.gateway.models import Live, Ready
from whatsappd.gateway.problems import HttpError
from whatsappd.supervision import Supervised, summary

router = APIRouter(tags=["system"], default_response_class=JsonAnswer)
#: Of no use in the document itself.
hidden = APIRouter(include_in_schema=False)


async def _asked(asking: Asking, method: str, **arguments: Any) -> Any:
    # What concerns all companies is not for keys that are bound to some.
    if asking.identity.companies is not None:
        raise HttpError(403, "denied", "this key is bound to companies; this is about all of them")
    if asking.link.is_up and method not in asking.link.methods:
        raise HttpError(501, "not_implemented", f"this daemon has no {method}: upgrade it")
    return await asking.call(method, **arguments)


@router.get("/v1/health", summary="How the daemon and its sessions are", response_model=None)
async def get_health(request: Request, asking: Reading) -> dict[str, Any]:
    """What `daemon.health` of the RPC answers, and a check of the gateway's own tasks. For load
    balancers there is `/livez`."""
    found: dict[str, Any] = await _asked(asking, "daemon.health")
    ok, detail, remedy = summary(request.app.state.supervision.tasks())
    found["checks"].append({"name": "gateway_tasks", "ok": ok, "detail": detail, "remedy": remedy})
    found["healthy"] = found["healthy"] and ok
    return found


@router.get(
    "/v1/metrics",
    summary="Metrics, for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(request: Request, asking: Reading) -> Response:
    # Compressed, because with many companies they are larger than an answer may be.
    found = await _asked(asking, "daemon.metrics", gzip=True)
    headers = {"Content-Type": found["content_type"]}
    own = _own_metrics(request.app.state.supervision.tasks())
    body = await trio.to_thread.run_sync(lambda: gzip.decompress(found["body"]) + own.encode())
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        body = await trio.to_thread.run_sync(gzip.compress, body, 1)
    return Response(body, headers={**headers, "Vary": "Accept-Encoding"})


def _own_metrics(tasks: Sequence[Supervised]) -> str:
    """Of the gateway's own tasks, as Prometheus text; their names are ours and need no quoting."""
    name = "whatsappd_gateway_task_failures_total"
    lines = [
        f"# HELP {name} Errors that ended a task of the gateway, after which it began anew.",
        f"# TYPE {name} counter",
        *(f'{name}{{task="{task.name}"}} {task.failures}' for task in tasks),
    ]
    return "\n".join(lines) + "\n"


@router.get("/livez", summary="Whether the gateway lives (no key needed)")
async def get_live(request: Request) -> Live:
    """200 as long as the gateway itself works, which is what a supervisor wants to know."""
    return Live(gateway="ok", daemon="ok" if request.app.state.link.is_up else "away")


@router.get(
    "/readyz",
    summary="Whether requests can be served (no key needed)",
    responses={503: {"description": "The daemon does not answer."}},
)
async def get_ready(request: Request, response: Response) -> Ready:
    """200 if the daemon answers, else 503: what a load balancer wants to know."""
    link = request.app.state.link
    if not link.is_up:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return Ready(ready=link.is_up, daemon="ok" if link.is_up else "away")


@hidden.get("/openapi.json")
async def get_openapi(request: Request) -> Response:
    # Relative to this document: a proxy may have all of it below a path of its own.
    return JsonAnswer({**request.app.openapi(), "servers": [{"url": "."}]})


@hidden.get("/docs")
async def get_docs(request: Request) -> Response:
    return HTMLResponse(
        page(request.app.openapi()), headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    )
