"""The gateway's connection to the daemon: one that all requests share, and that comes back.

What takes long has a connection of its own, so that it holds up nobody, and above all not the
question who somebody is.

While the daemon is away every call knocks, waits a moment, and fails (503 for its caller): so the
first request after a restart of the daemon finds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import trio

from whatsappd.errors import Denied, TooManyRequests, Unreachable, WhatsappdError
from whatsappd.rpc.client import Notice, RpcClient, open_client

log = structlog.get_logger()

#: Calls in flight on the shared connection: below the daemon's own limit for one (128).
MAX_IN_FLIGHT = 100
#: Seconds that a call waits for its turn before its caller is told to come again.
PATIENCE = 10.0
#: Seconds between attempts to connect: at the least, and when nobody asks.
KNOCK_PAUSE = 0.05
QUIET_PAUSE = 2.0
#: Seconds that a call waits for the connection when there is none.
MOMENT = 0.3
#: What waits for a worker, for WhatsApp or for a webhook's receiver: seconds, or longer.
SLOW = frozenset(
    {
        *("session.start", "session.stop", "session.restart", "session.logout", "session.remove"),
        "webhook.test",
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
        self._turns = trio.CapacityLimiter(MAX_IN_FLIGHT)
        self._on_revoked: list[Callable[[str], None]] = []
        #: The names of the methods that the present (or last) daemon has.
        self.methods: frozenset[str] = frozenset()

    def on_revoked(self, forget: Callable[[str], None]) -> None:
        """Call `forget` with the actor, `key:ID`, when a key is revoked."""
        self._on_revoked.append(forget)

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
                async with open_client(self._path) as client:
                    hello = await client.call("daemon.hello")
                    await self._check_trust(client)
                    self.methods = frozenset(hello["methods"])
                    self._client = client
                    self._came.set()
                    told = False
                    log.info("daemon_reached", pid=hello["pid"], mode=hello["mode"])
                    await client.call("key.follow")
                    async for notice in client.notifications:  # its end is the connection's
                        self._hear(notice)
                self._why = "the connection was lost"
            except WhatsappdError as error:
                self._why = error.message
            finally:
                self._client = None
                self._came = trio.Event()
            if not told:
                log.warning("daemon_away", reason=self._why)
                told = True
            await trio.sleep(KNOCK_PAUSE)
            self._knock = trio.Event()
            with trio.move_on_after(QUIET_PAUSE):
                await self._knock.wait()

    async def _check_trust(self, client: RpcClient) -> None:
        try:
            await client.request("daemon.hello", {}, actor="gateway")
        except Denied as error:
            raise Unreachable(
                "the daemon does not trust the gateway's user: run the gateway as the daemon's "
                "user, as root, or as the system user whatsappd-gateway"
            ) from error

    async def call(
        self, method: str, arguments: dict[str, Any] | None = None, *, actor: str | None = None
    ) -> Any:
        """As `request`; arguments that are None are left out, which means their default."""
        given = {name: value for name, value in (arguments or {}).items() if value is not None}
        return await self.request(method, given, actor=actor)

    async def request(self, method: str, arguments: dict[str, Any], *, actor: str | None) -> Any:
        """Call the daemon; `actor`: in whose name.

        Raises:
            WhatsappdError: what the daemon answered.
            Unreachable: it is away, or went away before it answered.
            TooManyRequests: too many calls wait for their answers already.
        """
        if method in SLOW:
            async with self.connection() as client:
                return await client.request(method, arguments, actor=actor)
        with trio.move_on_after(PATIENCE) as waiting:
            await self._turns.acquire()
        if waiting.cancelled_caught:
            raise TooManyRequests(f"{MAX_IN_FLIGHT} requests wait for the daemon: try again later")
        try:
            client = await self._present()
            return await client.request(method, arguments, actor=actor)
        finally:
            self._turns.release()

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
        """A connection of one's own, for what lasts: streams, and waiting.

        Raises:
            Unreachable: the daemon is away.
        """
        await self._present()
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(open_client(self._path))
            except Denied as error:  # the file's permissions: nothing that the caller could mend
                raise Unreachable(error.message) from error
            yield client
