"""One client's HTTP connection: reads requests, has the application answer them, ends in time.

h11 parses and writes HTTP/1.1. This file adds what h11 does not have: deadlines, limits, and who
may read or write at which moment. `gateway.run` makes one `HttpConnection` for each client that the
listener accepted.

Two tasks share a connection. One reads all the time, so that a client that leaves is noticed at
once; its request is then cancelled, whatever it waits for. The other serves the requests, one after
the other. If a request asks for a WebSocket, `websocket` has the connection from then on.

On failure: a request that breaks the protocol is answered with an error, and the connection is
closed. An error in the application is logged, and answered 500 if no answer has begun. Neither
reaches another connection.

HTTP/2 is not spoken, neither by upgrade (h2c) nor by prior knowledge; TLS offers `http/1.1` only.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import unquote

import h11
import trio

from whatsappd.gateway.headers import with_policy
from whatsappd.gateway.limited_log import LimitedLog
from whatsappd.gateway.listener import GuardedStream
from whatsappd.gateway.problem_details import HttpError, problem
from whatsappd.gateway.websocket import WebSocketExchange

log = LimitedLog()

#: Seconds for a request's headers to arrive, and that an idle connection is kept.
IDLE_FOR = 15.0
#: Seconds for the TLS handshake.
HANDSHAKE_WITHIN = 10.0
#: Bytes of all headers of a request, and of its first line.
MAX_HEADERS = 16 * 1024
#: Requests on one connection before it is closed.
MAX_KEPT_REQUESTS = 100_000
#: Bytes read at a time; the body of a request is read as fast as it is handled.
READ_SIZE = 32 * 1024
#: Bytes that a client may send ahead of the answer that it waits for (pipelining).
MAX_AHEAD = 64 * 1024
#: Seconds that a request still has after its client closed its sending side: it may be waiting for
#: the answer (`nc -N`), or gone. A reset, or an answer that cannot be sent, ends it at once.
HALF_CLOSED_FOR = 1.0
#: Seconds in which what a client is still sending is read and thrown away after an early answer.
#: Closing at once would take the answer from it (RFC 9112, section 9.6).
LINGER_FOR = 1.0
#: Seconds for the last words of TLS.
FAREWELL_WITHIN = 1.0

Header = tuple[bytes, bytes]
Application = Callable[..., Awaitable[None]]
Stream = GuardedStream | trio.SSLStream[GuardedStream]


class HttpService(NamedTuple):
    """What all connections of a gateway share.

    Args:
        app: the ASGI application that answers the requests.
        stopping: once it is set, no connection takes another request.
        behind_proxy: believe X-Forwarded-Proto, which our own proxy sets.
        idle_for: seconds; see `IDLE_FOR`.
    """

    app: Application
    stopping: trio.Event
    behind_proxy: bool = False
    idle_for: float = IDLE_FOR


class HttpConnection:
    """Serves one client: call `serve` once. Whoever opened the stream closes it afterwards."""

    def __init__(self, service: HttpService, stream: Stream) -> None:
        self._service = service
        self._stream = stream
        self._guarded = stream if isinstance(stream, GuardedStream) else stream.transport_stream
        self._has_tls = stream is not self._guarded
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADERS)
        self._websocket: WebSocketExchange | None = None
        self._sending = trio.Lock()
        self._unread = 0  # bytes that h11 holds, at the most
        self._is_body_read = True  # what comes now belongs to the client's next request
        self._is_discarding = False
        self._is_gone = False  # it sends nothing more
        self._ends_at = math.inf  # for the requests that it still has
        self._arrived = trio.Event()
        self._consumed = trio.Event()
        self._pause = trio.CancelScope()
        self._is_pausing = False
        self._request = trio.CancelScope()
        self._client = _address(self._guarded, "getpeername")
        self._server = _address(self._guarded, "getsockname")

    async def serve(self) -> None:
        """Serve requests until the client leaves, breaks the protocol or is idle for too long.

        Returns also if the TLS handshake fails or takes too long. Raises nothing for what a client
        does; other errors are the caller's to log.
        """
        if isinstance(self._stream, trio.SSLStream):
            with trio.move_on_after(HANDSHAKE_WITHIN) as late:
                try:
                    await self._stream.do_handshake()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
            if late.cancelled_caught:
                return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            await self._serve_requests()
            await self._leave()
            nursery.cancel_scope.cancel()

    def end_if_idle(self) -> None:
        """Close the connection if no request is running: the gateway stops."""
        if self._is_pausing:
            self._pause.cancel()

    # --- reading ------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            while self._unread >= MAX_AHEAD:
                if self._is_body_read:
                    self._lose(at_once=True)  # a flood of requests that nobody asked for yet
                    return
                self._consumed = trio.Event()
                await self._consumed.wait()
            try:
                data = await self._stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._lose(at_once=True)
                return
            if not data:
                self._lose(at_once=False)
                return
            if self._is_discarding:
                continue
            if self._websocket is not None and self._websocket.is_open:
                await self._websocket.feed(bytes(data))
                continue
            self._http.receive_data(bytes(data))
            self._unread += len(data)
            self._arrived.set()

    def _lose(self, *, at_once: bool) -> None:
        """End the client's request: now (`at_once`: the client is gone), or after
        HALF_CLOSED_FOR seconds (it has only closed its sending side)."""
        self._is_gone = True
        self._arrived.set()
        grace = -math.inf if at_once else HALF_CLOSED_FOR
        if self._websocket is not None:
            self._websocket.lose()
            grace = self._websocket.grace
        self._ends_at = min(self._ends_at, trio.current_time() + grace)
        self._request.deadline = min(self._request.deadline, self._ends_at)

    async def _more(self) -> bool:
        """Wait for more bytes from the client. Returns False if it sends no more."""
        if self._is_gone:
            return False
        self._note_consumed(0)
        self._arrived = trio.Event()
        await self._arrived.wait()
        return True

    def _note_consumed(self, left: int) -> None:
        self._unread = left
        self._consumed.set()

    # --- requests -----------------------------------------------------------------------------

    async def _serve_requests(self) -> None:
        served = 0
        while True:
            request = await self._next_request()
            if request is None:
                return
            served += 1
            is_last = served >= MAX_KEPT_REQUESTS
            exchange = _Exchange(self, request, is_last=is_last)
            await self._run(exchange)
            if self._service.stopping.is_set() or not exchange.is_complete:
                return
            if trio.current_time() >= self._ends_at:
                return
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> h11.Request | None:
        """Wait for the next request. Returns None if there will be none: the client left or was
        idle for too long, the gateway stops, or the request was malformed (and answered so)."""
        if self._service.stopping.is_set():
            return None
        # What arrives now may be a head and much of its body, before this task has looked at it.
        # So the bound on what is sent ahead of an answer does not apply yet.
        self._is_body_read = False
        self._is_pausing = True
        with trio.CancelScope(deadline=trio.current_time() + self._service.idle_for) as self._pause:
            try:
                while True:
                    event = self._http.next_event()
                    if isinstance(event, h11.Request):
                        return event
                    if event is not h11.NEED_DATA or not await self._more():
                        return None
            except h11.RemoteProtocolError as error:
                self._is_pausing = False
                await self._refuse(_protocol_error(error))
            finally:
                self._is_pausing = False
        return None

    async def _refuse(self, error: HttpError, request: h11.Request | None = None) -> None:
        """Answer bytes that are no request, or (`request`) one that the application is not to see.
        The connection is closed after it."""
        log.info(
            "request_refused",
            status=error.status,
            error=error.name,
            reason=error.message,
            address=self._client[0] if self._client else None,
        )
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        answer = problem(error)
        body = b"" if request is not None and request.method == b"HEAD" else answer.body
        await self._write(
            self._head(answer.status, answer.raw_headers, None, is_last=True)
            + self._packed(h11.Data(data=body))
            + self._packed(h11.EndOfMessage())
        )

    async def _run(self, exchange: _Exchange) -> None:
        self._is_body_read = False
        refusal = _refusal(exchange.request)
        if refusal is not None:
            await self._refuse(refusal, exchange.request)
            return
        wants_websocket = _wants_websocket(exchange.request)
        with trio.CancelScope(deadline=self._ends_at) as self._request:
            exchange.look_at_body()
            if wants_websocket:
                [key] = _values(exchange.request, b"sec-websocket-key")
                self._websocket = WebSocketExchange(key, exchange)
                try:
                    await self._websocket.run(self._service.app, exchange.scope("websocket"))
                finally:
                    exchange.is_complete = False
                return
            await exchange.run(self._service.app)

    # --- writing ------------------------------------------------------------------------------

    async def _write(self, data: bytes) -> None:
        """Send all of it, also if the request is cancelled meanwhile: half an answer would spoil
        all that follows.

        If the client does not read, `GuardedStream` gives up after a while. If it is gone, its
        request is cancelled; nothing is raised here.
        """
        try:
            if not self._has_tls and not self._sending.locked():
                data = data[self._guarded.send_now(data) :]
            if data:
                with trio.CancelScope(shield=True):
                    async with self._sending:
                        await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._lose(at_once=True)
            await trio.lowlevel.checkpoint()

    def _packed(self, event: Any) -> bytes:
        return self._http.send(event) or b""

    def _head(
        self, status: int, headers: Iterable[Header], request: h11.Request | None, *, is_last: bool
    ) -> bytes:
        secure = self._has_tls or (self._service.behind_proxy and _came_by_https(request))
        given = [(b"date", _date(int(time.time()))), *with_policy(headers, secure=secure)]
        if is_last or self._service.stopping.is_set():
            given = [(name, value) for name, value in given if name.lower() != b"connection"]
            given.append((b"connection", b"close"))
        return self._packed(h11.Response(status_code=status, headers=given))

    async def _leave(self) -> None:
        """Close our sending side, and wait a moment, so that the client can read the last
        answer. See LINGER_FOR."""
        if trio.current_time() >= self._ends_at:
            return
        self._is_discarding = True
        self._note_consumed(0)
        with trio.move_on_after(FAREWELL_WITHIN):
            try:
                if isinstance(self._stream, GuardedStream):
                    await self._stream.send_eof()
                else:
                    # It takes the transport along; whoever sends on is answered with a reset.
                    await self._stream.aclose()
                    return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
        with trio.move_on_after(LINGER_FOR):
            while not self._is_gone:
                self._arrived = trio.Event()
                await self._arrived.wait()


class _Exchange:
    """One request and its answer, translated from h11's events to ASGI's messages and back."""

    def __init__(self, connection: HttpConnection, request: h11.Request, *, is_last: bool) -> None:
        self._connection = connection
        self._http = connection._http
        self.request = request
        self._is_last = is_last
        self._first: h11.Data | h11.EndOfMessage | None = None
        self._start: dict[str, Any] | None = None
        self._began = False
        self.is_complete = False

    def look_at_body(self) -> None:
        """Note at once if the request has no body, as most: the next one may follow it then."""
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError:
            return  # told to whoever reads the body
        if isinstance(event, h11.Data | h11.EndOfMessage):
            self._first = event
        if isinstance(event, h11.EndOfMessage):
            self._note_end()

    def _note_end(self) -> None:
        self._connection._is_body_read = True
        self._connection._note_consumed(len(self._http.trailing_data[0]))

    def scope(self, kind: str) -> dict[str, Any]:
        connection = self._connection
        path, _, query = self.request.target.partition(b"?")
        scheme = "http" if kind == "http" else "ws"
        return {
            "type": kind,
            "asgi": {"spec_version": "2.3", "version": "3.0"},
            "http_version": self.request.http_version.decode(),
            "method": self.request.method.decode("ascii").upper(),
            "scheme": scheme + "s" * connection._has_tls,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(self.request.headers),
            "client": connection._client,
            "server": connection._server,
            "state": {},
            "extensions": {},
        }

    async def run(self, app: Application) -> None:
        """Have `app` answer. If it fails before it began to, the answer is 500."""
        try:
            await app(self.scope("http"), self._receive, self.send)
        except Exception as error:  # ends its connection only
            log.error("request_failed", path=self.request.target[:200].decode(), exc_info=error)
        if not self._began and not self._connection._is_gone:
            await self._connection._refuse(HttpError(500, "internal", "a defect of the gateway"))

    async def _receive(self) -> dict[str, Any]:
        """ASGI's `receive`: the next piece of the body. After its end this waits for ever, as the
        task is cancelled when the client leaves.

        Raises:
            HttpError: the client breaks the protocol.
        """
        event = self._first
        self._first = None
        if event is None:
            event = await self._next_piece()
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _next_piece(self) -> h11.Data | h11.EndOfMessage:
        connection = self._connection
        if self._http.their_state is not h11.SEND_BODY:
            await trio.sleep_forever()
        try:
            if self._http.they_are_waiting_for_100_continue and not self._began:
                await connection._write(
                    connection._packed(h11.InformationalResponse(status_code=100, headers=[]))
                )
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.EndOfMessage):
                    self._note_end()
                    return event
                if isinstance(event, h11.Data):
                    return event
                if not await connection._more():
                    await trio.sleep_forever()
        except h11.RemoteProtocolError as error:
            raise _protocol_error(error) from error

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI's `send`. The head is kept back until the first piece of the body is there, so that
        both leave together."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        data = b""
        if not self._began:
            self._began = True
            assert self._start is not None
            data = self.head(self._start["status"], self._start.get("headers", ()))
        body = message.get("body", b"")
        if body and self.request.method != b"HEAD":
            data += self._connection._packed(h11.Data(data=body))
        if not message.get("more_body", False):
            data += self._connection._packed(h11.EndOfMessage())
            self.is_complete = True
        if data:
            await self._connection._write(data)

    def head(self, status: int, headers: Iterable[Header], *, is_last: bool = False) -> bytes:
        is_last = is_last or self._is_last or not self._has_ended()
        return self._connection._head(status, headers, self.request, is_last=is_last)

    def _has_ended(self) -> bool:
        """Whether the whole request has arrived. If not, the connection has to be closed after the
        answer: the rest of the request would be taken for the next one."""
        try:
            while self._http.their_state is h11.SEND_BODY:
                if self._http.next_event() is h11.NEED_DATA:
                    return False
        except h11.RemoteProtocolError:
            return False
        if self._http.their_state is h11.ERROR:
            return False
        self._note_end()
        return True

    # --- for the WebSocket --------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        await self._connection._write(data)

    def switched(self, headers: list[Header]) -> tuple[bytes, bytes]:
        """Switch to the WebSocket. Returns the answer to send (101), and what the client sent
        before it got that."""
        self._began = True
        answer = self._connection._packed(h11.InformationalResponse(
            status_code=101, headers=[(b"upgrade", b"websocket"), (b"connection", b"upgrade"),
                                      *headers],
        ))  # fmt: skip
        ahead = self._http.trailing_data[0]
        self._connection._is_body_read = False
        self._connection._note_consumed(0)
        return answer, ahead

    async def answer(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """The whole answer to an upgrade that is refused."""
        self._began = True
        packed = self._connection._packed
        await self._connection._write(
            self.head(status, headers, is_last=True)
            + (packed(h11.Data(data=body)) if body else b"")
            + packed(h11.EndOfMessage())
        )

    def cancel_within(self, seconds: float) -> None:
        """Give the application at most so many seconds from now."""
        scope = self._connection._request
        scope.deadline = min(scope.deadline, trio.current_time() + seconds)


def _refusal(request: h11.Request) -> HttpError | None:
    """Why a request is refused, whoever sends it; None: it is fine."""
    if request.http_version not in (b"1.1", b"1.0"):
        return HttpError(505, "http_version", "this server speaks HTTP/1.1")
    if request.method == b"CONNECT":
        return HttpError(501, "not_implemented", "this server is no proxy")
    if not request.target.startswith(b"/") and request.target != b"*":
        return HttpError(400, "malformed", "send the path alone, not a whole URL")
    names = [name for name, _ in request.headers]
    if sum(len(name) + len(value) + 4 for name, value in request.headers) > MAX_HEADERS:
        # h11 counts them only while they are incomplete.
        return HttpError(
            431, "headers_too_large", f"headers have at most {MAX_HEADERS} bytes together"
        )
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version == b"1.0"
    ):
        # Where it ends is a matter of opinion: a proxy with another one would let a second
        # request through unseen (RFC 9112, section 6.1).
        return HttpError(
            400, "malformed", "send Content-Length or (in HTTP/1.1) Transfer-Encoding, not both"
        )
    path = request.target.partition(b"?")[0].lower()
    if b"%2f" in path or b"%5c" in path or b"%00" in path:
        # A proxy may look at it before or after decoding: its rules must see what we see.
        return HttpError(400, "malformed", "a slash in a path is written as it is")
    return _websocket_refusal(request, names) if _wants_websocket(request) else None


def _websocket_refusal(request: h11.Request, names: list[bytes]) -> HttpError | None:
    if b"content-length" in names or b"transfer-encoding" in names:
        return HttpError(400, "malformed", "a request for a WebSocket has no body")
    if len(_values(request, b"sec-websocket-key")) != 1:
        return HttpError(400, "malformed", "a request for a WebSocket has a Sec-WebSocket-Key")
    if _values(request, b"sec-websocket-version") != [b"13"]:
        return HttpError(
            426,
            "websocket_version",
            "the WebSocket's version here is 13",
            headers={"Sec-WebSocket-Version": "13", "Upgrade": "websocket"},
        )
    return None


def _wants_websocket(request: h11.Request) -> bool:
    """Whether the request asks for a WebSocket. Other upgrades, such as h2c, are ignored, as RFC
    9110, section 7.8, allows."""
    return (
        request.method == b"GET"
        and request.http_version == b"1.1"
        and b"websocket" in _tokens(request, b"upgrade")
        and b"upgrade" in _tokens(request, b"connection")
    )


def _protocol_error(error: h11.RemoteProtocolError) -> HttpError:
    status = error.error_status_hint
    if status == 431:
        return HttpError(431, "headers_too_large", f"headers have at most {MAX_HEADERS} bytes")
    name = "not_implemented" if status == 501 else "malformed"
    return HttpError(status, name, f"this is no HTTP/1.1 request: {error}")


def _values(request: h11.Request, wanted: bytes) -> list[bytes]:
    return [value for name, value in request.headers if name == wanted]


def _tokens(request: h11.Request, wanted: bytes) -> set[bytes]:
    return {
        token.strip().lower() for value in _values(request, wanted) for token in value.split(b",")
    }


def _came_by_https(request: h11.Request | None) -> bool:
    return request is not None and _tokens(request, b"x-forwarded-proto") == {b"https"}


def _address(stream: GuardedStream, which: str) -> tuple[str, int] | None:
    """Host and port of one end; None for a Unix socket."""
    try:
        found = getattr(stream.socket, which)()
    except OSError:
        return None
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None


@functools.lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
