"""Lets a request in or refuses it, before a route runs: who asks, is there room, is it too large.

In this order: is it from this host's own pages (without authentication only), who is it, is there
room for it, is the body of a sane size and kind. The answer to any "no" is a problem, and a line in
the log without the secret. A request that fails in its route is answered here too, so that nothing
undocumented leaves. What is wrong with a request as such, `connection` has refused before.

HEAD is answered here, as GET without the body: the routes know GET alone.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio

from whatsappd.errors import Internal, TooLarge, WhatsappdError
from whatsappd.gateway.answers import HttpAnswer, Receive, Send
from whatsappd.gateway.auth import Authenticator, presented_key
from whatsappd.gateway.limited_log import LimitedLog
from whatsappd.gateway.problem_details import HttpError, problem
from whatsappd.gateway.requests import HttpRequest, RequestHeaders, Scope, StreamedAnswer
from whatsappd.gateway.settings import Exposure
from whatsappd.gateway.websocket import AcceptedWebSocket
from whatsappd.rules.bounds import HTTP_REQUESTS, Holder, Places
from whatsappd.rules.client_address import address_of, forwarded_for

log = LimitedLog()

#: Bytes of a request's body: the longest text (65,536 characters), each escaped as twelve.
MAX_BODY = 1024 * 1024
#: Seconds that a body may take to arrive.
BODY_WITHIN = 30.0
#: Requests at the same time, streams not counted: of all, and of one caller, so that nobody takes
#: the room of others. Those who need not say who they are share what is one caller's.
MAX_REQUESTS = HTTP_REQUESTS.all
MAX_OF_ONE = HTTP_REQUESTS.each
#: Whose requests those are of callers who need not say who they are.
STRANGERS = Holder("strangers")

#: Below it, everybody must say who they are. What is beside it (the documentation) is public.
GUARDED = "/v1/"
#: What a proxy may have the gateway below: plain names between slashes.
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]{1,64}){1,8}")
#: Where server-sent events are, for those who ask for them (see `events`).
EVENTS = "/v1/events"


class AdmittedRequests(Protocol):
    """What is done with requests that were let in. `routing.RouteTable` implements it."""

    async def answer(self, request: HttpRequest, /) -> HttpAnswer | StreamedAnswer: ...
    async def upgrade(self, request: HttpRequest, websocket: AcceptedWebSocket, /) -> None: ...


class RequestAdmission:
    """An ASGI application: lets requests in, hands them to `admitted`, and sends its answers."""

    def __init__(
        self, admitted: AdmittedRequests, authenticator: Authenticator, exposure: Exposure
    ) -> None:
        self._admitted = admitted
        self._authenticator = authenticator
        self._exposure = exposure
        self.requests = Places(HTTP_REQUESTS)  # under way, by caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As GET, up to where the body begins: a stream that would begin there does not."""

        async def send_head(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                answering.cancel()

        with trio.CancelScope() as answering:
            await self._answer({**scope, "method": "GET"}, receive, send_head)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = RequestHeaders(scope["headers"])
        request = HttpRequest(scope, headers, self._address(scope, headers), self._prefix(headers))
        began = False

        async def watched_send(message: dict[str, Any]) -> None:
            nonlocal began
            began = True
            await send(message)

        told: HttpError | WhatsappdError
        try:
            await self._admit(request, receive, watched_send)
            return
        except (HttpError, WhatsappdError) as error:
            log_refusal(request, error)
            told = error
        except Exception as error:  # noqa: BLE001 - a request's error ends its request only
            told = _defect(request, error)
        if not began:
            await _refuse(request, receive, send, told)

    async def _admit(self, request: HttpRequest, receive: Receive, send: Send) -> None:
        if self._exposure.local_only:
            _check_own_page(request)
        caller = STRANGERS
        if is_guarded := request.path.startswith(GUARDED):
            identity = await self._authenticator.identify(request.headers, request.address)
            request.identity = identity
            caller = Holder(identity.actor)
        elif not request.is_websocket and request.method not in ("GET", "OPTIONS"):
            raise HttpError(
                405,
                "method_not_allowed",
                "this is only to be looked at",
                headers={"Allow": "GET, HEAD, OPTIONS"},
            )
        if request.is_websocket:
            offered = request.scope.get("subprotocols") or []
            await self._admitted.upgrade(request, AcceptedWebSocket(offered, receive, send))
            return
        if _is_stream(request):
            await (await self._admitted.answer(request))(receive, send)
            return
        with self.requests.place(caller):
            # A stranger's body is not waited for: nothing that is public wants one.
            if is_guarded:
                request.body = await _body(request.headers, receive)
            await (await self._admitted.answer(request))(receive, send)

    def _address(self, scope: Scope, headers: RequestHeaders) -> str:
        """Where it comes from: an address, or `local` for a Unix socket without one."""
        if self._exposure.behind_proxy:
            found = forwarded_for(headers.all("x-forwarded-for"), headers.all("forwarded"))
            if found is not None:
                return str(found)
        client = scope.get("client")
        found = address_of(str(client[0])) if client else None
        return "local" if found is None else str(found)

    def _prefix(self, headers: RequestHeaders) -> str:
        """Below which path of our proxy all of this is: `/wa`, or nothing."""
        told = (
            headers.get("x-forwarded-prefix", "").rstrip("/") if self._exposure.behind_proxy else ""
        )
        return told if _PREFIX.fullmatch(told) else ""


def log_refusal(request: HttpRequest, error: HttpError | WhatsappdError) -> None:
    """One line for an answer that is an error: who asked for what from where; no secret."""
    status = error.status if isinstance(error, HttpError) else error.http_status
    # What is merely not found or in another state is daily business.
    write = (
        log.info if status in (401, 403, 408, 413, 415, 429, 431) or status >= 500 else log.debug
    )
    identity = request.identity
    write(
        "request_refused",
        status=status,
        error=error.name,
        method="WEBSOCKET" if request.is_websocket else request.method,
        path=request.path[:200],
        address=request.address,
        actor=identity.actor if identity else _claimed(request.headers),
    )


def _defect(request: HttpRequest, error: Exception) -> Internal:
    """Log an error that nobody foresaw; what the caller is told has its reference only."""
    reference = secrets.token_hex(4)
    log.error("request_failed", path=request.path[:200], reference=reference, exc_info=error)
    return Internal(
        f"a defect of the gateway; its log has the details under {reference}", reference=reference
    )


def _claimed(headers: RequestHeaders) -> str | None:
    """Whose key was shown, by its public id; never the key."""
    key = presented_key(headers)
    if key is None:
        return None
    parts = key.split("_")
    return f"key:{parts[1]}?" if key.startswith("wak_") and len(parts[1]) == 8 else "no key of ours"


def _check_own_page(request: HttpRequest) -> None:
    """Refuse what a page of elsewhere makes the browser of somebody on this host send.

    Every browser tells one way or another: it names this host by a name that is not its own (DNS
    rebinding), or says where the page is from (Sec-Fetch-Site; Origin, which is not sent along with
    pictures and scripts; Referer). Programs say nothing of that, and come in.

    Raises:
        HttpError: 403.
    """
    headers = request.headers
    host = headers.get("host", "")
    if host and not _is_this_host(host):
        raise HttpError(403, "foreign_host", f"without authentication, not under {host!r:.80}")
    foreign = HttpError(
        403, "foreign_origin", "without authentication, no requests of other sites' pages"
    )
    origin = headers.get("origin")
    if origin is not None and _netloc(origin) != host:
        raise foreign
    site = headers.get("sec-fetch-site")
    if site is None:
        referer = headers.get("referer")
        if origin is None and referer is not None and _netloc(referer) != host:
            raise foreign
    elif site not in ("same-origin", "none") and not _is_visit(request):
        raise foreign


def _is_visit(request: HttpRequest) -> bool:
    """Whether somebody follows a link to the page, in a window of its own."""
    return (
        not request.is_websocket
        and request.method == "GET"
        and not request.path.startswith(GUARDED)
        and request.headers.get("sec-fetch-mode") == "navigate"
        and request.headers.get("sec-fetch-dest") == "document"
    )


def _is_this_host(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _is_stream(request: HttpRequest) -> bool:
    # Only where there are streams: `Streams` bounds their number, and nothing reads their bodies.
    return (
        request.path == EVENTS
        and request.method == "GET"
        and "text/event-stream" in request.headers.get("accept", "")
    )


async def _body(headers: RequestHeaders, receive: Receive) -> bytes:
    declared = headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > MAX_BODY:
        raise TooLarge(f"a body has at most {MAX_BODY} bytes", limit=MAX_BODY)
    parts: list[bytes] = []
    size = 0
    with trio.move_on_after(BODY_WITHIN) as slow:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise HttpError(400, "incomplete", "the request ended before its body")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY:
                raise TooLarge(f"a body has at most {MAX_BODY} bytes", limit=MAX_BODY)
            if not message.get("more_body", False):
                break
    if slow.cancelled_caught:
        raise HttpError(408, "too_slow", f"the body did not arrive within {BODY_WITHIN:.0f} s")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if size and kind != "application/json":
        raise HttpError(
            415, "unsupported_media_type", "bodies are JSON: send Content-Type: application/json"
        )
    return b"".join(parts)


async def _refuse(
    request: HttpRequest, receive: Receive, send: Send, error: HttpError | WhatsappdError
) -> None:
    answer = problem(error)
    if not request.is_websocket:
        await answer(receive, send)
        return
    # The handshake's answer: extension "WebSocket Denial Response" of the ASGI specification.
    await send(
        {
            "type": "websocket.http.response.start",
            "status": answer.status,
            "headers": answer.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": answer.body})
