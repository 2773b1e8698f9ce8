"""Following the log for one client: what WebSocket and server-sent events have in common.

Each stream has a connection to the daemon of its own, so the daemon's own limit on unread bytes,
and a deadline for each send here, bound what a slow reader can hold. Nobody is left waiting without
a word: the client learns why a stream ends, and resumes from the last `seq` it handled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Annotated, Any, NamedTuple, Protocol

import structlog
import trio
from msgspec import Meta

from whatsappd.api import events
from whatsappd.api.declaration import Params
from whatsappd.api.events import Subscribe, Subscribed
from whatsappd.api.types import CompanyId, Seq
from whatsappd.errors import Revoked, WhatsappdError
from whatsappd.gateway.auth import ADMIN, ANYBODY, Authenticator, Identity
from whatsappd.gateway.daemon_link import ANSWER_WITHIN, DaemonLink, ask, within
from whatsappd.gateway.problem_details import HttpError
from whatsappd.rpc.client import RpcClient
from whatsappd.rules.bounds import COMPANY_STREAMS, STREAMS, Holder, Places

log = structlog.get_logger()

#: Names that a caller may give a consumer.
CONSUMER_PATTERN = r"^[A-Za-z0-9._:@-]{1,48}$"

#: Seconds between heartbeats, so that clients and proxies know that a quiet stream lives.
HEARTBEAT_EVERY = 20.0
#: Seconds between looks at whether the key still is good.
RECHECK_EVERY = 3.0
#: Seconds that one send may take. Whoever takes longer is dropped, told so if it reads again
#: before the listener cuts it (`listener.SEND_STALLED_AFTER`).
SLOW_AFTER = 5.0

# Close codes of the WebSocket; RFC 6455 leaves 4000 to 4999 to applications.
GOING_AWAY = 1001  # the gateway stops: connect again
UNAUTHENTICATED = 4401  # the key was revoked
TOO_SLOW = 4408  # did not read: resume from the last seq
DAEMON_AWAY = 4503  # the daemon went away: connect again, it will be back
BAD_MESSAGE = 4400  # what the client sent is no {"ack": SEQ}


class Ended(Exception):
    """Ends a stream; the client is told `code` and `reason`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class EventFilter(Params):
    """What of the log is wanted; for streams."""

    after: Annotated[Seq | None, Meta(description="Replay what is behind this event first.")] = None
    company: Annotated[list[CompanyId] | None, Meta(description="Only these companies.")] = None
    type: Annotated[
        list[str] | None, Meta(description="Only these types.", examples=[["message.received"]])
    ] = None
    consumer: Annotated[
        Annotated[str, Meta(extra_json_schema={"pattern": CONSUMER_PATTERN})] | None,
        Meta(description="For streams; see above."),
    ] = None


class Outlet(Protocol):
    """How one kind of stream words things. Each returns when its bytes have left."""

    async def event(self, event: dict[str, Any]) -> None: ...
    async def gap(self, first_seq: int) -> None: ...
    async def heartbeat(self, last_seq: int) -> None: ...


class Caller(NamedTuple):
    """Whose stream one is, and what shows it."""

    identity: Identity
    headers: Mapping[str, str]
    address: str


class Streams:
    """All streams of this gateway: whose they are, and how to end them. One per process.

    Each holds a connection to the daemon. They are counted by key, and by each company that a key
    is bound to: neither takes what others need.
    """

    def __init__(self, authenticator: Authenticator, stopping: trio.Event) -> None:
        self._authenticator = authenticator
        self._stopping = stopping
        self.by_key = Places(STREAMS)
        self.by_company = Places(COMPANY_STREAMS)
        self._revoked: dict[str, set[trio.Event]] = {}  # of the streams of each actor

    @property
    def open(self) -> int:
        return self.by_key.total

    def report(self) -> list[dict[str, Any]]:
        """For `daemon.limits`."""
        return [self.by_key.report(), self.by_company.report()]

    def revoke(self, actor: str) -> None:
        """End the actor's streams now, with what waits to be handed on."""
        for revoked in self._revoked.get(actor, ()):
            revoked.set()

    @contextmanager
    def _places(self, identity: Identity) -> Iterator[None]:
        is_bound = identity.companies is not None
        holder = Holder(
            identity.actor,
            is_capped=identity is not ANYBODY,
            may_use_kept=not is_bound and identity.scope == ADMIN,
        )
        with ExitStack() as stack:
            stack.enter_context(self.by_key.place(holder))
            for company in identity.companies or ():
                stack.enter_context(self.by_company.place(Holder(f"company:{company}")))
            yield

    @asynccontextmanager
    async def subscribed(
        self, link: DaemonLink, identity: Identity, wanted: Subscribe
    ) -> AsyncIterator[tuple[RpcClient, Subscribed]]:
        """A connection that follows what is wanted, and the daemon's answer to that.

        Raises:
            TooManyRequests: the key, its companies, or all together have too many streams.
            WhatsappdError: what the daemon answered.
        """
        with self._places(identity):
            async with link.connection() as client:
                asking = ask(client, events.SUBSCRIBE, wanted, actor=identity.actor)
                yield client, await within(ANSWER_WITHIN, asking)

    async def follow(
        self,
        caller: Caller,
        client: RpcClient,
        after: int,
        outlet: Outlet,
        *others: Callable[[], Awaitable[None]],
    ) -> None:
        """Hand on what the daemon notifies, until something ends it; `others` run beside it.

        Raises:
            Ended: why.
        """
        ended: list[Ended] = []
        last = _Last(after)
        async with trio.open_nursery() as nursery:

            async def guarded(part: Callable[[], Awaitable[None]]) -> None:
                try:
                    await part()
                except Ended as end:
                    ended.append(end)
                except Revoked as error:
                    ended.append(Ended(UNAUTHENTICATED, error.message))
                except WhatsappdError as error:
                    ended.append(Ended(DAEMON_AWAY, error.message))
                nursery.cancel_scope.cancel()

            for part in (
                lambda: _hand_on(client, outlet, last),
                lambda: _beat(outlet, last),
                lambda: self._recheck(caller),
                lambda: self._until_revoked(caller.identity.actor),
                self._stop,
                *others,
            ):
                nursery.start_soon(guarded, part)
        if ended:
            raise ended[0]

    async def _recheck(self, caller: Caller) -> None:
        while True:
            await trio.sleep(RECHECK_EVERY)
            try:
                await self._authenticator.identify(caller.headers, caller.address)
            except HttpError as error:
                if error.status == 401:
                    raise Ended(UNAUTHENTICATED, error.message) from error
            except WhatsappdError as error:
                # Nobody can tell just now. If the daemon is away, this stream's own connection
                # ends as well, and tells more.
                log.debug("stream_not_rechecked", reason=error.message)

    async def _until_revoked(self, actor: str) -> None:
        revoked = trio.Event()
        own = self._revoked.setdefault(actor, set())
        own.add(revoked)
        try:
            await revoked.wait()
        finally:
            own.discard(revoked)
            if not own:
                self._revoked.pop(actor, None)
        raise Ended(UNAUTHENTICATED, "the API key was revoked")

    async def _stop(self) -> None:
        await self._stopping.wait()
        raise Ended(GOING_AWAY, "the gateway stops: connect again")


class _Last:
    """The newest event that was handed on."""

    def __init__(self, seq: int) -> None:
        self.seq = seq


async def _hand_on(client: RpcClient, outlet: Outlet, last: _Last) -> None:
    async for notice in client.notifications:
        if notice.method == "event":
            event = notice.arguments["event"]
            await outlet.event(event)
            last.seq = event["seq"]
        elif notice.method == "events.gap":
            await outlet.gap(notice.arguments["first_seq"])
    if isinstance(client.lost, Revoked):
        raise client.lost
    raise Ended(DAEMON_AWAY, "the daemon went away, or does not answer: connect again and resume")


async def _beat(outlet: Outlet, last: _Last) -> None:
    while True:
        await trio.sleep(HEARTBEAT_EVERY)
        await outlet.heartbeat(last.seq)


class StreamSender:
    """Sends, and drops a client that takes too long to read. (`connection` keeps turns.)"""

    def __init__(self, send: Callable[[Any], Awaitable[None]]) -> None:
        self._send = send

    async def __call__(self, message: Any) -> None:
        """Raises Ended if the client took more than SLOW_AFTER seconds to take it."""
        began = trio.current_time()
        await self._send(message)
        if trio.current_time() - began > SLOW_AFTER:
            raise Ended(TOO_SLOW, "you read too slowly: resume from the last seq you handled")
