"""Routes: declared beside what answers them, found by path and method, checked before they run.

`openapi` makes the OpenAPI document of the same declarations.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from whatsappd.api.checking import checked
from whatsappd.api.declaration import NoParams, Params, Result
from whatsappd.api.messages import MESSAGE_ID_PATTERN, MessageId
from whatsappd.api.types import CompanyId
from whatsappd.api.webhooks import WEBHOOK_ID_PATTERN, WebhookId
from whatsappd.errors import InvalidParams
from whatsappd.gateway.answers import HttpAnswer, as_json
from whatsappd.gateway.problem_details import HttpError
from whatsappd.gateway.requests import (
    HttpRequest,
    RequestHeaders,
    RoutedRequest,
    Shared,
    StreamedAnswer,
    from_text,
)
from whatsappd.gateway.websocket import AcceptedWebSocket
from whatsappd.model.company import validate_company

#: The variable parts of paths: their types, for the document.
PATH_TYPES: dict[str, Any] = {
    "company": CompanyId,
    "message_id": MessageId,
    "webhook_id": WebhookId,
}
_PATTERNS = {
    "message_id": re.compile(MESSAGE_ID_PATTERN),
    "webhook_id": re.compile(WEBHOOK_ID_PATTERN),
}

#: What answers: the result itself (JSON, with the route's status), or an answer in full.
Answering = Callable[[RoutedRequest[Any, Any]], Awaitable[Result | HttpAnswer | StreamedAnswer]]
Upgrading = Callable[[RoutedRequest[Any, Any], AcceptedWebSocket], Awaitable[None]]
A = TypeVar("A", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True)
class Possible:
    """One good answer of a route: its body (by media type, if it is not JSON), and its meaning."""

    result: type[Result] | None = None
    about: str = "Done."
    others: tuple[str, ...] = ()  # media types beside JSON


@dataclass(frozen=True)
class Route:
    """How one method of one path is declared, and what answers it.

    Args:
        scope: what a caller's key needs to have; None: anybody may ask.
        answers: good answers, by status; the first is the one of a handler that returns a result.
        body_required: whether there has to be one.
    """

    method: str
    path: str
    answer: Answering
    tag: str
    summary: str
    about: str
    scope: str | None
    answers: Mapping[int, Possible]
    query: type[Params] = NoParams
    body: type[Params] | None = None
    body_required: bool = False
    headers: type[Params] | None = None
    is_documented: bool = True

    @property
    def name(self) -> str:
        return getattr(self.answer, "__name__", "route")

    @property
    def status(self) -> int:
        return next(iter(self.answers))


@dataclass
class Routes:
    """The routes of one subject; decorate what answers them."""

    tag: str
    is_documented: bool = True
    all: list[Route] = field(default_factory=list)
    websockets: dict[str, tuple[str, Upgrading]] = field(default_factory=dict)

    def route(
        self,
        method: str,
        path: str,
        summary: str,
        *,
        scope: str | None,
        answers: Mapping[int, Possible] | type[Result],
        query: type[Params] = NoParams,
        body: type[Params] | None = None,
        body_required: bool = False,
        headers: type[Params] | None = None,
        about: str = "",
    ) -> Callable[[A], A]:
        """See `Route`. `answers`: a result is the answer 200."""
        if isinstance(answers, type):
            answers = {200: Possible(answers)}

        def declare(answer: A) -> A:
            text = about or (answer.__doc__ or "")
            self.all.append(
                Route(
                    method, path, answer, self.tag, summary, text, scope, answers, query, body,
                    body_required, headers, self.is_documented,
                )
            )  # fmt: skip
            return answer

        return declare

    def websocket(self, path: str, *, scope: str) -> Callable[[A], A]:
        def declare(upgrade: A) -> A:
            self.websockets[path] = scope, upgrade
            return upgrade

        return declare


class RouteTable:
    """All routes of a gateway: finds the one that is asked for, checks what it is given, runs it.

    Args:
        shared: what each route may use.
    """

    def __init__(self, subjects: Iterable[Routes], shared: Shared) -> None:
        self._shared = shared
        self.routes: list[Route] = []
        self._websockets: dict[str, tuple[str, Upgrading]] = {}
        self._fixed: dict[str, dict[str, Route]] = {}
        self._variable: dict[int, list[tuple[re.Pattern[str], dict[str, Route]]]] = {}
        for subject in subjects:
            self._websockets |= subject.websockets
            self.routes += subject.all
        by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            by_path.setdefault(route.path, {})[route.method] = route
        for path, methods in by_path.items():
            if "{" not in path:
                self._fixed[path] = methods
                continue
            pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
            self._variable.setdefault(path.count("/"), []).append((pattern, methods))

    def find(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        """The routes of a path by method, and its variable parts.

        Raises:
            HttpError: 404.
        """
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        for pattern, methods in self._variable.get(path.count("/"), ()):
            found = pattern.fullmatch(path)
            if found is not None:
                return methods, found.groupdict()
        raise HttpError(404, "no_such_path", "there is nothing at this path: see /docs")

    async def answer(self, request: HttpRequest) -> HttpAnswer | StreamedAnswer:
        """Find the route, check what it is given, and run it.

        Raises:
            HttpError: there is no such path or method, or the body is no JSON.
            InvalidParams: a part of the path, the query or the body is wrong.
            WhatsappdError: what the daemon answered.
        """
        methods, parts = self.find(request.path)
        route = methods.get(request.method)
        if route is None:
            allowed = {"allow": ", ".join(sorted({"OPTIONS", *methods, *_head(methods)}))}
            if request.method == "OPTIONS":
                return HttpAnswer(status=204, headers=allowed)
            raise HttpError(
                405, "method_not_allowed", f"this path takes {allowed['allow']}", headers=allowed
            )
        if route.scope is not None:
            _check_rights(request, route.scope, parts)
        asked = RoutedRequest(
            request,
            self._shared,
            parts,
            from_text(request.query, route.query),
            _body(request, route),
        )
        answered = await route.answer(asked)
        if isinstance(answered, HttpAnswer | StreamedAnswer):
            return answered
        return as_json(answered, status=route.status)

    async def upgrade(self, request: HttpRequest, websocket: AcceptedWebSocket) -> None:
        """Serve a WebSocket.

        Raises:
            HttpError: there is none at this path.
        """
        found = self._websockets.get(request.path)
        if found is None:
            raise HttpError(404, "no_such_path", "there is no WebSocket here: it is /v1/events")
        scope, upgrading = found
        _check_rights(request, scope, {})
        asked = RoutedRequest(request, self._shared, {}, NoParams(), NoParams())
        await upgrading(asked, websocket)


def headers_of(headers: RequestHeaders, wanted: type[Params]) -> Any:
    """The `wanted` structure of a request's headers."""
    return from_text({name: [value] for name, value in headers.items()}, wanted)


def _head(methods: Mapping[str, Route]) -> set[str]:
    return {"HEAD"} if "GET" in methods else set()  # see `admission`


def _check_rights(request: HttpRequest, scope: str, parts: Mapping[str, str]) -> None:
    assert request.identity is not None
    request.identity.check_scope(scope)
    for name, value in parts.items():
        if name == "company":
            request.identity.check_company(validate_company(value))
        elif name in _PATTERNS and _PATTERNS[name].match(value) is None:
            raise InvalidParams(f"{name}: {value!r:.80} is no id of one", field=name)


def _body(request: HttpRequest, route: Route) -> Any:
    if route.body is None:
        return NoParams()
    if route.body_required and not request.body:
        raise InvalidParams("body: is missing: send a JSON object", field="body")
    arguments = _json(request.body) if request.body else {}
    if not isinstance(arguments, dict):
        raise InvalidParams("body: must be a JSON object", field="body")
    return checked(arguments, route.body)


def _json(text: bytes) -> Any:
    """What the body holds.

    Raises:
        HttpError: 400: it is no JSON.
        InvalidParams: a text in it is no Unicode.
    """
    text = text.removeprefix(codecs.BOM_UTF8)  # some programs put it before all that they write
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # JSON can write halves of surrogate pairs, which are no text.
        malformed = HttpError(400, "malformed", "the body is no JSON")
        try:
            found = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise malformed from None
        for name, value in found.items() if isinstance(found, dict) else ():
            if not _is_unicode(name) or not _is_unicode(value):
                shown = name if _is_unicode(name) else ascii(name)
                raise InvalidParams(f"{shown}: is no Unicode text", field=shown) from None
        raise malformed from None


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
