"""One delivery attempt: a POST that ends, whatever the receiver does.

httpcore rather than httpx or aiohttp: it runs on trio, lets us open the connections ourselves, and
follows no redirects, reads no proxy from the environment and keeps no cookies, since it cannot.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpcore
import trio

from whatsappd.gateway.webhooks.network import AddressRefused, CheckedBackend
from whatsappd.gateway.webhooks.signing import headers_for

#: Bytes of an answer that are read: enough to say in words why it refused.
MAX_ANSWER = 2048
#: Connections to one receiver: more events than that are not in flight at a time.
CONNECTIONS = 4
KEEP_ALIVE_S = 30.0
#: Addresses that do not answer at all, of which so many are tried within the time-out.
CONNECT_TRIES = 3


class Outcome(NamedTuple):
    """What became of an attempt. `error` None: the receiver took it."""

    status: int | None
    error: str | None
    took_ms: int

    @property
    def ok(self) -> bool:
        return self.error is None

    def as_wire(self) -> dict[str, Any]:
        return {"ok": self.ok, **self._asdict()}


class Receiver:
    """Where one webhook's events go. Made by `open_receiver`."""

    def __init__(
        self, pool: httpcore.AsyncConnectionPool, url: str, secret: str, timeout_s: float
    ) -> None:
        self._pool = pool
        self._url = url
        self._secret = secret
        self._timeout_s = timeout_s

    async def post(self, identity: str, body: bytes) -> Outcome:
        """Deliver once. Every failure is an outcome."""
        began = trio.current_time()
        status, error = None, None
        with trio.move_on_after(self._timeout_s) as scope:
            try:
                status, error = await self._post(identity, body)
            except AddressRefused as refused:
                error = str(refused)
            except (
                httpcore.NetworkError,
                httpcore.ProtocolError,
                httpcore.TimeoutException,
                httpcore.UnsupportedProtocol,
                OSError,
            ) as failed:
                error = _words(failed)
        if scope.cancelled_caught:
            status, error = None, f"no answer within {self._timeout_s:g} s"
        return Outcome(status, error, round((trio.current_time() - began) * 1000))

    async def _post(self, identity: str, body: bytes) -> tuple[int, str | None]:
        headers: list[tuple[bytes | str, bytes | str]] = [
            *headers_for(self._secret, identity, int(time.time()), body).items(),
            ("Content-Length", str(len(body))),
        ]
        # For each address of the name; the time for all of it is the caller's to bound.
        extensions = {"timeout": {"connect": self._timeout_s / CONNECT_TRIES}}
        answer = b""
        async with self._pool.stream(
            "POST", self._url, headers=headers, content=_Body(body), extensions=extensions
        ) as response:
            # Read to its end if that is near, so that the connection can be used again. Else the
            # read is cancelled, and httpcore closes the connection.
            with trio.CancelScope() as enough:
                async for part in response.aiter_stream():
                    answer += part[: MAX_ANSWER - len(answer)]
                    if len(answer) >= MAX_ANSWER:
                        enough.cancel()
        return response.status, _refusal(response.status, answer)


class _Body:
    """Bytes to send. httpcore's own wrapper is a generator, which a cancellation leaves open."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._whole = body

    def __aiter__(self) -> _Body:
        return _Body(self._whole)

    async def __anext__(self) -> bytes:
        body, self._body = self._body, None
        if body is None:
            raise StopAsyncIteration
        return body


@asynccontextmanager
async def open_receiver(
    url: str, secret: str, *, allow_private: bool, timeout_s: float, tls: ssl.SSLContext
) -> AsyncIterator[Receiver]:
    """A receiver with connections of its own."""
    async with httpcore.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=CONNECTIONS,
        keepalive_expiry=KEEP_ALIVE_S,
        network_backend=CheckedBackend(allow_private=allow_private),
    ) as pool:
        yield Receiver(pool, url, secret, timeout_s)


def _refusal(status: int, answer: bytes) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"status {status}: redirects are not followed; configure the address it leads to"
    text = " ".join(answer[:200].decode("utf-8", "replace").split())
    printable = "".join(c for c in text if c.isprintable())
    return f"status {status}: {printable}" if printable else f"status {status}"


def _words(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or cause}"
        cause = cause.__cause__ or cause.__context__
    reason = str(error) or type(error).__name__
    if isinstance(error, httpcore.ConnectError):
        return f"cannot connect: {reason}"
    return f"the connection failed: {reason}"
