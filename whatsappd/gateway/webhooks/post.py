"""Makes one HTTP POST to a webhook's receiver, which ends in time whatever the receiver does.

`Receiver.post` returns an `Outcome`: the receiver took the event, or why not. The answer's status
decides, as Standard Webhooks says: with 2xx it is taken, whatever becomes of the body behind it. No
failure of the receiver, its name or its TLS raises anything. Used by `delivery` and `deliverer`.

Why httpcore and not httpx or aiohttp: it runs on trio and lets us open the connections ourselves.
It also knows no redirects, no proxies from the environment and no cookies.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpcore
import trio

from whatsappd.api.webhooks import DeliveryOutcome
from whatsappd.gateway.webhooks.network import AddressRefused, CheckedBackend
from whatsappd.gateway.webhooks.signing import headers_for
from whatsappd.rules.webhook_policy import (
    GONE,
    OVERLOADED,
    WebhookTarget,
    parse_url,
    retry_after_ms,
)

#: Bytes of an answer that are read: enough to say in words why it refused.
MAX_ANSWER = 2048
#: Seconds for which the body of an answer is read: the status has said what counts.
ANSWER_WITHIN = 1.0
#: Connections to one receiver: more events than that are not in flight at a time.
CONNECTIONS = 4
KEEP_ALIVE_S = 30.0
#: Addresses that do not answer at all, of which so many are tried within the time-out.
CONNECT_TRIES = 3


class Outcome(NamedTuple):
    """What became of an attempt.

    Args:
        status: what the receiver answered; None: nothing.
        error: why it did not take the event, in words; None: it took it.
        took_ms: milliseconds until that was clear.
        retry_after_ms: how long the receiver asked to be left alone; None: it did not.
    """

    status: int | None
    error: str | None
    took_ms: int
    retry_after_ms: int | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no more events, for good."""
        return self.status == GONE

    @property
    def is_receivers(self) -> bool:
        """Whether the receiver is in trouble: any other event would have failed as well."""
        return self.status in OVERLOADED or (self.status is None and not self.ok)

    def told(self) -> DeliveryOutcome:
        """What the daemon is told of it."""
        return DeliveryOutcome(
            ok=self.ok, status=self.status, error=self.error, took_ms=self.took_ms
        )


class _Answer:
    """What has arrived of an answer."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.retry_after_ms: int | None = None
        self.text = b""


class Receiver:
    """The server that one webhook's events go to. Made by `open_receiver`."""

    def __init__(
        self,
        pool: httpcore.AsyncConnectionPool,
        target: WebhookTarget,
        secret: str,
        timeout_s: float,
    ) -> None:
        self._pool = pool
        self._target = target
        self._url = httpcore.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.target
        )
        self._secret = secret
        self._timeout_s = timeout_s

    @property
    def origin(self) -> tuple[str, str, int]:
        """See `WebhookTarget.origin`."""
        return self._target.origin

    async def post(self, identity: str, body: bytes) -> Outcome:
        """Post one event, once, within the receiver's timeout. Failures are outcomes too.

        Args:
            identity: see `signing.id_of`.
        """
        began = trio.current_time()
        answer, error = _Answer(), None
        with trio.move_on_after(self._timeout_s) as scope:
            try:
                await self._post(identity, body, answer)
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
        if answer.status is not None:
            error = _refusal(answer.status, answer.text)
        elif scope.cancelled_caught:
            error = f"no answer within {self._timeout_s:g} s"
        took_ms = round((trio.current_time() - began) * 1000)
        return Outcome(answer.status, error, took_ms, answer.retry_after_ms)

    async def _post(self, identity: str, body: bytes, answer: _Answer) -> None:
        headers: list[tuple[bytes | str, bytes | str]] = [
            ("Host", self._target.host_header),
            *headers_for(self._secret, identity, int(time.time()), body).items(),
            ("Content-Length", str(len(body))),
        ]
        # For each address of the name; the time for all of it is the caller's to bound.
        extensions = {"timeout": {"connect": self._timeout_s / CONNECT_TRIES}}
        async with self._pool.stream(
            "POST", self._url, headers=headers, content=_Body(body), extensions=extensions
        ) as response:
            answer.status = response.status
            answer.retry_after_ms = _retry_after(response.headers)
            # Read to its end if that is near, so that the connection can be used again. Else the
            # read is cancelled, and httpcore closes the connection.
            with trio.move_on_after(ANSWER_WITHIN) as enough:
                async for part in response.aiter_stream():
                    answer.text += part[: MAX_ANSWER - len(answer.text)]
                    if len(answer.text) >= MAX_ANSWER:
                        enough.cancel()


def _retry_after(headers: list[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name.lower() == b"retry-after":
            return retry_after_ms(value.decode("latin-1"), int(time.time() * 1000))
    return None


class _Body:
    """A request's body, for httpcore. Its own wrapper is a generator, and a cancellation would
    leave that open."""

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
    url: str,
    secret: str,
    *,
    allow_private: bool,
    timeout_s: float,
    tls: ssl.SSLContext,
    resolve: Callable[[str, int], list[str]] | None = None,
) -> AsyncIterator[Receiver]:
    """A receiver with connections of its own.

    Args:
        allow_private: connect to addresses that are not on the Internet, too.
        resolve: finds the addresses of a name, blocking; by default the system's resolver.

    Raises:
        InvalidParams: `url` cannot be read.
    """
    target = parse_url(url)
    async with httpcore.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=CONNECTIONS,
        keepalive_expiry=KEEP_ALIVE_S,
        network_backend=CheckedBackend(allow_private=allow_private, resolve=resolve),
    ) as pool:
        yield Receiver(pool, target, secret, timeout_s)


def _refusal(status: int, answer: bytes) -> str | None:
    if 200 <= status < 300:
        return None
    if status == GONE:
        return f"status {status}: the receiver wants no more events"
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
