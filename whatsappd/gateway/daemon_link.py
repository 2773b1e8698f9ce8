"""The gateway's connection to the daemon: one that all requests share, and that comes back.

What takes long has a connection of its own, so that it holds up nobody, and above all not the
question who somebody is.

While the daemon is away every call knocks, waits a moment, and fails (503 for its caller): so the
first request after a restart of the daemon finds it. A daemon that holds its connections and does
not answer (stopped by a signal, or stuck) is away as well: it is asked every few seconds, each call
has a deadline, and what has a connection of its own loses it. When it goes on, it is found again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import structlog
import trio

from whatsappd.api import daemon, keys, limits, sessions, webhooks
from whatsappd.api.declaration import Declaration, Params, Result
from whatsappd.errors import Denied, TimedOut, TooManyRequests, Unreachable, WhatsappdError
from whatsappd.rpc.client import RpcClient, open_client
from whatsappd.rules.bounds import REPORTED
from whatsappd.wire.client_exchange import Notice

log = structlog.get_logger()

P = TypeVar("P", bound=Params)
R = TypeVar("R", bound=Result)
T = TypeVar("T")

#: Calls in flight on the shared connection: below the daemon's own limit for one (128).
MAX_IN_FLIGHT = 100
#: Seconds that a call waits for its turn before its caller is told to come again.
PATIENCE = 10.0
#: Seconds between attempts to connect: at the least, and when nobody asks.
KNOCK_PAUSE = 0.05
QUIET_PAUSE = 2.0
#: Seconds that a call waits for the connection when there is none.
MOMENT = 0.3
#: Seconds between questions whether the daemon still answers, and for the answer.
ASK_EVERY = 2.0
ALIVE_WITHIN = 5.0
#: Seconds for an answer: of what the daemon does by itself, and of what waits for a worker, for
#: WhatsApp or for a webhook's receiver (SLOW). They are longer than the
#: daemon's own deadlines.
ANSWER_WITHIN = 30.0
SLOW_WITHIN = 120.0
#: What waits for a worker, for WhatsApp or for a webhook's receiver: seconds, or longer.
SLOW = frozenset(
    {
        *(sessions.START.name, sessions.STOP.name, sessions.RESTART.name, sessions.LOGOUT.name),
        *(sessions.REMOVE.name, webhooks.TEST.name),
    }
)


class DaemonLink:
    """`run` keeps it up; everything else may be called at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: RpcClient | None = None
        self._why = "not asked yet"
        self._knock = trio.Event()
        self._came = trio.Event()
        self._own: set[RpcClient] = set()  # connections for what lasts
        self._turns = trio.CapacityLimiter(MAX_IN_FLIGHT)
        self._on_revoked: list[Callable[[str], None]] = []
        self._reporters: list[Callable[[], list[dict[str, Any]]]] = []
        #: The names of the methods that the present (or last) daemon has.
        self.methods: frozenset[str] = frozenset()

    def on_revoked(self, forget: Callable[[str], None]) -> None:
        """Call `forget` with the actor, `key:ID`, when a key is revoked."""
        self._on_revoked.append(forget)

    def report(self, reporter: Callable[[], list[dict[str, Any]]]) -> None:
        """Tell the daemon, every few seconds, who holds how much here: for `whatsappctl limits`."""
        self._reporters.append(reporter)

    def _reports(self) -> list[dict[str, Any]]:
        found = [each for reporter in self._reporters for each in reporter()]
        return [{**each, "holders": each["holders"][:REPORTED]} for each in found]

    def _hear(self, notice: Notice) -> None:
        if notice.method == "key.revoked":
            for forget in self._on_revoked:
                forget(f"key:{notice.arguments['id']}")

    @property
    def is_up(self) -> bool:
        return self._client is not None

    async def run(self) -> None:
        """Connect, and again whenever the connection ends, until cancelled."""
        told = False
        while True:
            try:
                async with open_client(self._path, connect_within=ALIVE_WITHIN) as client:
                    await self._greet(client)
                    told = False
                    await self._watch(client)
            except WhatsappdError as error:
                self._why = error.message
            finally:
                self._client = None
                self._came = trio.Event()
                for own in list(self._own):
                    own.give_up(Unreachable(f"whatsappd does not answer: {self._why}"))
            if not told:
                log.warning("daemon_away", reason=self._why)
                told = True
            await trio.sleep(KNOCK_PAUSE)
            self._knock = trio.Event()
            with trio.move_on_after(QUIET_PAUSE):
                await self._knock.wait()

    async def _greet(self, client: RpcClient) -> None:
        hello = await within(ALIVE_WITHIN, client.request(daemon.HELLO.name, {}))
        try:
            await within(ALIVE_WITHIN, client.request(daemon.HELLO.name, {}, actor="gateway"))
        except Denied as error:
            raise Unreachable(
                "the daemon does not trust the gateway's user: run the gateway as the daemon's "
                "user, as root, or as the system user whatsappd-gateway"
            ) from error
        self.methods = frozenset(hello["methods"])
        self._client = client
        self._came.set()
        log.info("daemon_reached", pid=hello["pid"], mode=hello["mode"])

    async def _watch(self, client: RpcClient) -> None:
        """Until the daemon hangs up, or does not answer any more.

        Raises:
            Unreachable: always.
        """
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                async for notice in client.notifications:  # its end is the connection's
                    self._hear(notice)
                self._why = "the connection was lost"
                nursery.cancel_scope.cancel()

            async def ask() -> None:
                try:
                    if keys.FOLLOW.name in self.methods:
                        await within(ANSWER_WITHIN, client.request(keys.FOLLOW.name, {}))
                    while True:
                        await trio.sleep(ASK_EVERY)
                        await within(ALIVE_WITHIN, client.request(*self._question()))
                except WhatsappdError as error:
                    self._why = error.message
                    nursery.cancel_scope.cancel()

            nursery.start_soon(drain)
            nursery.start_soon(ask)
        self._client = None
        raise Unreachable(self._why)

    def _question(self) -> tuple[str, dict[str, Any]]:
        """What shows that the daemon lives."""
        if limits.REPORT.name in self.methods:
            return limits.REPORT.name, {"bounds": self._reports()}
        return daemon.HELLO.name, {}

    async def ask(self, method: Declaration[P, R], params: P, *, actor: str | None = None) -> R:
        """As `request`, with typed arguments and result."""
        received = await self.request(method.name, method.arguments(params), actor=actor)
        return _result_of(method, received)

    async def request(self, method: str, arguments: dict[str, Any], *, actor: str | None) -> Any:
        """Call the daemon; `actor`: in whose name.

        Raises:
            WhatsappdError: what the daemon answered.
            Unreachable: it is away, or went away before it answered.
            TimedOut: it did not answer in time; what was asked for may still be done.
            TooManyRequests: too many calls wait for their answers already.
        """
        if method in SLOW:
            async with self.connection() as client:
                return await within(SLOW_WITHIN, client.request(method, arguments, actor=actor))
        # A turn lasts until the daemon is done, also if its caller left: the daemon counts too.
        turn = object()
        with trio.move_on_after(PATIENCE) as waiting:
            await self._turns.acquire_on_behalf_of(turn)
        if waiting.cancelled_caught:
            raise TooManyRequests(f"{MAX_IN_FLIGHT} requests wait for the daemon: try again later")
        release = partial(self._turns.release_on_behalf_of, turn)
        try:
            client = await self._present()
        except BaseException:
            release()
            raise
        try:
            return await within(
                ANSWER_WITHIN, client.request(method, arguments, actor=actor, settled=release)
            )
        except Unreachable as error:
            if self._client is client:
                raise
            raise Unreachable(f"whatsappd does not answer: {self._why}") from error

    async def _present(self) -> RpcClient:
        if self._client is None:
            self._knock.set()
            with trio.move_on_after(MOMENT):
                await self._came.wait()
        if self._client is None:
            raise Unreachable(f"whatsappd does not answer: {self._why}")
        return self._client

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[RpcClient]:
        """A connection of one's own, for what lasts: streams, and waiting. It ends with the shared
        one.

        Raises:
            Unreachable: the daemon is away.
        """
        await self._present()
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(
                    open_client(self._path, connect_within=ALIVE_WITHIN)
                )
            except Denied as error:  # the file's permissions: nothing that the caller could mend
                raise Unreachable(error.message) from error
            self._own.add(client)
            try:
                yield client
            finally:
                self._own.discard(client)


class DaemonCalls(Protocol):
    """A connection to the daemon, for whoever only calls it."""

    async def request(
        self, method: str, arguments: dict[str, Any], /, *, actor: str | None = None
    ) -> Any:
        """See `rpc.client.RpcClient.request`."""
        ...


async def ask(
    client: DaemonCalls, method: Declaration[P, R], params: P, *, actor: str | None = None
) -> R:
    """As `DaemonLink.ask`, over a connection of the caller's own, and without a deadline.

    Raises:
        WhatsappdError: what the daemon answered.
        Unreachable: the connection is lost, or the daemon is of another version.
    """
    received = await client.request(method.name, method.arguments(params), actor=actor)
    return _result_of(method, received)


def _result_of(method: Declaration[P, R], received: Any) -> R:
    """The daemon's answer as a typed result. Fields that are not declared are left out.

    Raises:
        Unreachable: a declared field is missing or of another type: the daemon is of another
            version.
    """
    try:
        return method.answer(received)
    except msgspec.ValidationError as error:
        raise Unreachable(
            f"whatsappd answers {method.name} in another way than this gateway knows ({error}): "
            "restart the gateway, so that both are of one version"
        ) from error


async def within(seconds: float, asking: Awaitable[T]) -> T:
    """The answer. Raises TimedOut if there is none in time."""
    with trio.move_on_after(seconds):
        return await asking
    raise TimedOut(
        f"whatsappd holds the connection and did not answer within {seconds:.0f} s: it is stopped, "
        "stuck or overloaded (`systemctl status whatsappd`); what was asked for may still be done"
    )
