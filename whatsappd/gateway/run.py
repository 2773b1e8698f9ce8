"""The gateway's process: opens the link and the listener, serves until SIGTERM, ends in order.

`whatsappd gateway` runs `run_gateway`. The accept loop is ours and not `hypercorn.trio.serve`'s,
because that one's sends cannot be ended (see `listener`); all of HTTP and WebSocket is Hypercorn's.
"""

from __future__ import annotations

import errno
import gc
import resource
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from whatsappd.errors import BadStateDirectory
from whatsappd.gateway.app import make_app
from whatsappd.gateway.auth import ApiKeys, Authenticator, NoAuthentication
from whatsappd.gateway.connection import Connection
from whatsappd.gateway.door import MAX_HEADERS
from whatsappd.gateway.link import DaemonLink
from whatsappd.gateway.listener import GuardedListener, GuardedStream, open_socket
from whatsappd.gateway.settings import GatewaySettings
from whatsappd.gateway.webhooks.deliverer import run_deliverer
from whatsappd.supervision import Supervision

log = structlog.get_logger()

#: Seconds that requests still have when the gateway is told to stop.
STOP_WITHIN = 5.0
#: Seconds for a request's headers to arrive, and that an idle connection is kept.
IDLE_FOR = 15.0
#: Requests on one connection before it is closed.
MAX_KEPT_REQUESTS = 100_000
HANDSHAKE_WITHIN = 10.0
#: Seconds between tries when there is no file descriptor or memory left. Nothing announces one.
ACCEPT_PAUSE = 0.1
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Bytes of a WebSocket message from a client: acks are tiny.
MAX_WS_MESSAGE = 4096


async def run_gateway(
    settings: GatewaySettings,
    *,
    authenticate: Callable[[DaemonLink], Authenticator] = ApiKeys,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until SIGTERM or SIGINT; the daemon may come and go meanwhile.

    Args:
        authenticate: makes what tells who sends a request, given the way to the daemon.

    Raises:
        InvalidParams: the settings would let strangers in, or cannot be used.
        AlreadyRunning: the address is taken.
    """
    settings.check()
    _raise_descriptor_limit()
    config = _config(settings)
    link = DaemonLink(settings.socket)
    authenticator = NoAuthentication() if settings.no_auth else authenticate(link)
    app = make_app(
        link, authenticator, local_only=settings.no_auth, behind_proxy=settings.behind_proxy
    )
    listening = open_socket(settings.bind)
    port: int = listening.getsockname()[1] if settings.bind.path is None else 0
    stopping: trio.Event = app.state.stopping
    async with GuardedListener(listening) as listener, trio.open_nursery() as linking:
        supervision: Supervision = app.state.supervision
        linking.start_soon(supervision.keep, "link", link.run)
        deliver = partial(run_deliverer, settings.socket, allow_private=settings.private_webhooks)
        linking.start_soon(supervision.keep, "deliverer", deliver)
        async with trio.open_nursery() as serving:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
                await serving.start(_serve, app, config, listener, stopping, supervision)
                log.info(
                    "gateway_ready",
                    bind=str(settings.bind._replace(port=port)),
                    tls=settings.has_tls,
                    authentication=not settings.no_auth,
                    daemon=str(settings.socket),
                )
                _settle_memory()
                task_status.started(port)
                await anext(received)
                log.info("gateway_stopping", within_s=STOP_WITHIN)
                stopping.set()
        linking.cancel_scope.cancel()
    log.info("gateway_stopped")


async def _serve(
    app: Any,
    config: Config,
    listener: GuardedListener,
    stopping: trio.Event,
    supervision: Supervision,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Serve until `stopping`; then requests have STOP_WITHIN seconds to end."""
    context = WorkerContext(None)
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
    tls = config.create_ssl_context()
    accepting: Any = listener
    if tls is not None:
        accepting = trio.SSLListener(listener, tls, https_compatible=True)

    idle: dict[GuardedStream, Callable[[], None]] = {}

    async def handle(stream: Any) -> None:
        guarded: GuardedStream = stream if tls is None else stream.transport_stream
        try:
            connection = Connection(wrapped, config, context, stream)
            idle[guarded] = connection.end_if_idle
            await connection
        except Exception as error:  # ends this connection only
            log.warning("connection_failed", address=guarded.address, exc_info=error)
        finally:
            idle.pop(guarded, None)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(guarded)  # at once, whatever it is in the middle of
            listener.release(guarded)

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as nursery:
            accept = partial(_accept, accepting, handle, connections)
            nursery.start_soon(
                partial(supervision.keep, "http", accept, fatal=(BadStateDirectory,))
            )
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()
        await listener.aclose()
        await context.terminated.set()  # connections end with the request that they serve
        for end_if_idle in list(idle.values()):
            end_if_idle()
        with trio.move_on_after(STOP_WITHIN):
            await listener.wait_empty()
        await listener.cut_all()
        connections.cancel_scope.cancel()


async def _accept(
    listener: trio.abc.Listener[Any],
    handle: Callable[[Any], Awaitable[None]],
    connections: trio.Nursery,
) -> None:
    """Accept until cancelled. After an error it may be run again: the listener stays open, which
    `trio.serve_listeners` would close."""
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _SHORT_OF:
                raise
            log.warning("accept_short", reason=error.strerror)
            await trio.sleep(ACCEPT_PAUSE)
        else:
            connections.start_soon(handle, stream)


def _config(settings: GatewaySettings) -> Config:
    config = Config()
    config.h11_max_incomplete_size = MAX_HEADERS
    config.h2_max_header_list_size = MAX_HEADERS
    config.keep_alive_timeout = IDLE_FOR
    config.keep_alive_max_requests = MAX_KEPT_REQUESTS
    config.ssl_handshake_timeout = HANDSHAKE_WITHIN
    config.websocket_max_message_size = MAX_WS_MESSAGE
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None  # `door` and `_serve` log what fails
    if settings.tls_cert is not None and settings.tls_key is not None:
        config.certfile = str(settings.tls_cert)
        config.keyfile = str(settings.tls_key)
    return config


def _settle_memory() -> None:
    """Spare the collector what lives as long as the process, and let it run less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)


def _raise_descriptor_limit() -> None:
    # A stream holds two descriptors: its client's, and its connection to the daemon.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
