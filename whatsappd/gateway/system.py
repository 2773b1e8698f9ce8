"""Health, metrics, the OpenAPI document and its page: everything that is about no company."""

from __future__ import annotations

import gzip
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from whatsappd.gateway.asking import Asking, Reading
from whatsappd.gateway.docs import CONTENT_SECURITY_POLICY, page
from whatsappd.gateway.models import Live
from whatsappd.gateway.problems import HttpError

router = APIRouter(tags=["system"])
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
async def get_health(asking: Reading) -> dict[str, Any]:
    """What `daemon.health` of the RPC answers. For load balancers there is `/livez`."""
    found: dict[str, Any] = await _asked(asking, "daemon.health")
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
    body, headers = found["body"], {"Content-Type": found["content_type"]}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        body = gzip.decompress(body)
    return Response(body, headers={**headers, "Vary": "Accept-Encoding"})


@router.get("/livez", summary="Whether the gateway lives (no key needed)")
async def get_live(request: Request) -> Live:
    return Live(gateway="ok", daemon="ok" if request.app.state.link.is_up else "away")


@hidden.get("/openapi.json")
async def get_openapi(request: Request) -> Response:
    return JSONResponse(request.app.openapi())


@hidden.get("/docs")
async def get_docs(request: Request) -> Response:
    return HTMLResponse(
        page(request.app.openapi()), headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    )
