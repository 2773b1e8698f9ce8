"""The routes put together: errors become problems, and the OpenAPI document says so.

`run` serves what `make_app` returns. Further routers (webhooks, the page at `/`) are added to
`ROUTERS`; what is not under `/v1/` needs no key.
"""

from __future__ import annotations

from typing import Any

import trio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from whatsappd import __version__
from whatsappd.errors import WhatsappdError
from whatsappd.gateway import events, messages, sessions, system
from whatsappd.gateway.auth import Authenticator
from whatsappd.gateway.door import Door, log_refusal
from whatsappd.gateway.link import DaemonLink
from whatsappd.gateway.models import Problem
from whatsappd.gateway.page import routes as page
from whatsappd.gateway.problems import MEDIA_TYPE, HttpError, problem
from whatsappd.gateway.streaming import Streams
from whatsappd.gateway.webhooks import routes as webhooks
from whatsappd.rules.bounds import HTTP_REQUESTS, Places
from whatsappd.supervision import Supervision

ROUTERS = (
    *(messages.router, sessions.router, events.router, webhooks.router),
    *(system.router, system.hidden, page.router),
)

_DESCRIPTION = """\
Many WhatsApp accounts, one per company, over REST, WebSocket and server-sent events.

Send `Authorization: Bearer KEY` with each request; `whatsappctl keys create` makes keys. A key has
a scope (`read`, `send` or `admin`, each including the one before) and is for all or some companies.

Errors are RFC 9457 problem details with a stable `name`. Times are integer milliseconds since the
epoch. On 429 and 503 wait for `Retry-After` seconds. Sending again with the same `Idempotency-Key`
is always safe.
"""

#: What each route may answer beside its success, by the kind of route.
_ALWAYS = {
    400: "The request is malformed.",
    401: "The API key is missing, unknown or revoked.",
    403: "The key's scope or companies do not allow it.",
    422: "A field is wrong; `errors` names it.",
    429: "Too many wrong keys, or a limit is reached; see `Retry-After`.",
    431: "The headers are too large.",
    500: "A defect; the log has the details under the reference.",
    503: "The daemon is away, or there is too much to do; see `Retry-After`.",
}
_WITH_COMPANY = {404: "There is no such company or message."}
_WRITING = {
    408: "The body did not arrive in time.",
    409: "The state, or an idempotency key used with other content, does not allow it.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    502: "WhatsApp, or the company's worker, refused it.",
    504: "What was waited for did not happen in time.",
    507: "The daemon's disk is full.",
}


class Application(FastAPI):
    """FastAPI behind the door; `state.stopping` ends its streams."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _document(self)
        return self.openapi_schema


def make_app(
    link: DaemonLink, authenticator: Authenticator, *, local_only: bool, behind_proxy: bool
) -> Application:
    """The ASGI application. `local_only`, `behind_proxy`: see `door.Door`."""
    app = Application(
        title="whatsappd",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI's own, which it would look for at each request. Ours are the daemon's metrics.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            WhatsappdError: _answer_error,
            HttpError: _answer_error,
            RequestValidationError: _answer_invalid,
            HTTPException: _answer_http,
        },
    )
    # Not `include_router`, which looks for each request's route twice, one router after the other.
    for router in ROUTERS:
        app.router.routes.extend(router.routes)
    app.state.link = link
    app.state.stopping = trio.Event()
    app.state.supervision = Supervision()
    app.state.streams = Streams(authenticator, app.state.stopping)
    link.on_revoked(app.state.streams.revoke)
    app.router.default = _no_such_path(app.router.default)
    app.state.requests = Places(HTTP_REQUESTS)  # under way, by caller
    link.report(app.state.requests.reports)
    link.report(app.state.streams.report)
    app.add_middleware(
        Door,
        requests=app.state.requests,
        authenticator=authenticator,
        local_only=local_only,
        behind_proxy=behind_proxy,
    )
    return app


def _no_such_path(not_found: ASGIApp) -> ASGIApp:
    """Starlette's answer where there is no route; a WebSocket it would refuse without a word."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            raise HttpError(404, "no_such_path", "there is no WebSocket here: it is /v1/events")
        await not_found(scope, receive, send)

    return answer


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, WhatsappdError | HttpError)
    if request.scope["type"] == "websocket":
        raise error  # `door` refuses the handshake with it
    log_refusal(request.scope, error)
    return problem(error)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        wrong = HttpError(400, "malformed", "the body is no JSON")
    else:
        errors = [
            {
                "field": ".".join(str(step) for step in each["loc"][1:]) or str(each["loc"][0]),
                "message": each["msg"],
            }
            for each in found
        ]
        first = errors[0]
        wrong = HttpError(
            422, "invalid_params", f"{first['field']}: {first['message']}", errors=errors
        )
    return await _answer_error(request, wrong)


async def _answer_http(request: Request, error: Exception) -> Response:
    """What Starlette and FastAPI raise by themselves: no such path, an unreadable body."""
    assert isinstance(error, HTTPException)
    headers = error.headers
    if error.status_code == 405:
        headers = {"Allow": ", ".join(_allowed(request))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    name = {404: "no_such_path", 405: "method_not_allowed", 400: "malformed"}.get(
        error.status_code, "http_error"
    )
    return await _answer_error(
        request, HttpError(error.status_code, name, str(error.detail), headers=headers)
    )


def _allowed(request: Request) -> list[str]:
    """All methods of a path: each is a route of its own, and Starlette names the first one's."""
    found = {"OPTIONS"}
    for route in request.app.router.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    if "GET" in found:
        found.add("HEAD")  # see `door`
    return sorted(found)


def _document(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 with the problems that `door` and the table of errors can answer."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    definition = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(definition.pop("$defs"))
    schemas["Problem"] = definition
    document["components"]["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _describe(path, method, operation)
    return document


def _describe(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if not path.startswith("/v1/"):
        responses.pop("422", None)
        return
    operation["security"] = [{"apiKey": []}]
    possible = dict(_ALWAYS)
    if "{company}" in path:
        possible |= _WITH_COMPANY
    if "{webhook_id}" in path:
        possible[404] = "There is no such webhook or dead letter."
    if path.endswith("/qr"):
        possible[409] = "No code is shown now; `data.state` says how the session is."
    if path in ("/v1/health", "/v1/metrics"):
        possible[501] = "This daemon does not have it."
    if method != "get":
        possible |= _WRITING
    else:
        # A GET's body is not looked at, but it is read, and refused if it is too large.
        possible |= {status: _WRITING[status] for status in (408, 413, 415)}
    for status, description in sorted(possible.items()):
        responses[str(status)] = {
            "description": description,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
