"""Serves the daemon's Unix socket, from the first connection to the last answer.

`app` calls it when all parts are up, and gives it these parts.
"""

from __future__ import annotations

import math
import os
import pwd
import time
from contextlib import suppress
from functools import partial

import structlog
import trio

from whatsappd import garbage_collection
from whatsappd.config.access import group_id
from whatsappd.config.settings import Settings
from whatsappd.daemon_run import DaemonRun
from whatsappd.errors import Denied, Revoked
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.table import ApiParts, build_table
from whatsappd.rpc.listener import close_listener, open_listener
from whatsappd.rpc.own_descendants import DescendantCheck
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.rpc.server import RpcServer, root_and_this_user, serve_rpc
from whatsappd.rpc.user_shares import Shares, by_user
from whatsappd.rules.bounds import Holder
from whatsappd.shutdown import STOP_WITHIN
from whatsappd.systemd import show_status

log = structlog.get_logger()

#: The system user that systemd/whatsappd-gateway.service runs as.
GATEWAY_USER = "whatsappd-gateway"
#: Seconds between looks for that user, while there is none: a look may ask the network.
ASK_FOR_USER_EVERY = 1.0


async def serve(run: DaemonRun, parts: ApiParts) -> None:
    """Serve the socket until the daemon is to stop; then answer requests in flight and remove it.

    Raises:
        AlreadyRunning: another daemon serves the socket.
        BadStateDirectory: the socket cannot be made, or is gone.
    """
    settings, notify, supervision = run.live.settings, run.launch.notify, run.supervision
    listener = run.listener or open_listener(
        settings.socket.path,
        mode=settings.socket.mode,
        group=group_id(settings.socket.group) if settings.socket.group else None,
    )

    async def changed() -> None:
        await parts.store.events.wait_beyond(parts.store.events.last_seq)

    may_speak = _GatewayTrust()

    descendants = DescendantCheck(parts.pool.children, lambda: parts.engine.status.filters_calls)

    def admit(peer: Peer) -> None:
        descendants.admit(peer)
        parts.access.admit(peer)

    def holder_of(peer: Peer) -> Holder:
        # The gateway serves many, and bounds each of them itself.
        holder = by_user(peer)
        return holder._replace(is_capped=False) if may_speak(peer) else holder

    shares = Shares(holder_of=holder_of)
    table = build_table(parts, shares, descendants)
    try:
        async with trio.open_nursery() as serving:
            server: RpcServer = await serving.start(
                partial(
                    serve_rpc,
                    listener.socket,
                    table,
                    allow=parts.access.allow,
                    may_speak=may_speak,
                    admit=admit,
                    shares=shares,
                    supervision=supervision,
                )
            )
            run.live.follow(lambda changed: _use_rules(parts.access, server, changed))
            parts.store.keys.follow(lambda identity: _end_key(server, identity))
            parts.store.keys.follow(lambda _identity: parts.store.webhooks.look_again())
            elapsed_ms = round((time.monotonic() - run.started_s) * 1000)
            log.info(
                "ready",
                socket=listener.path,
                mode=parts.mode,
                pid=os.getpid(),
                elapsed_ms=elapsed_ms,
            )
            notify.ready(parts.pool.describe())
            garbage_collection.settle()
            async with trio.open_nursery() as showing:
                if notify.is_heard:
                    showing.start_soon(
                        supervision.keep,
                        "status",
                        partial(show_status, notify, parts.pool.describe, changed),
                    )
                await run.stopping.wait()
                showing.cancel_scope.cancel()
            log.info("stopping", within_s=STOP_WITHIN)
            notify.stopping()
            server.stop()
    finally:
        close_listener(listener)


def _end_key(server: RpcServer, identity: str) -> None:
    ended = server.end_actor(f"key:{identity}", Revoked("the API key was revoked"))
    if ended:
        log.info("calls_ended", count=ended, reason="the API key was revoked", key=identity)


def _use_rules(access: AccessControl, server: RpcServer, settings: Settings) -> None:
    access.use(settings.access)
    error = Denied("the access rules were changed, and took rights from this user: connect again")
    ended = server.end(access.took_from, error)
    if ended:
        log.info("connections_ended", count=ended, reason="the access rules were changed")


class _GatewayTrust:
    """Whether a peer may call in the name of somebody else: root, our own user, and the gateway's.

    The gateway may be installed while the daemon runs, so its user is looked up until it exists.
    """

    def __init__(self) -> None:
        self._uid: int | None = None
        self._asked = -math.inf

    def __call__(self, peer: Peer) -> bool:
        if root_and_this_user(peer):
            return True
        if self._uid is None and time.monotonic() - self._asked > ASK_FOR_USER_EVERY:
            with suppress(KeyError):
                self._uid = pwd.getpwnam(GATEWAY_USER).pw_uid
            self._asked = time.monotonic()
        return peer.uid == self._uid
