"""The gateway's process: opens the link and the listener, serves until SIGTERM, ends in order.

`whatsappd gateway` runs `run_gateway`. SIGHUP reads the certificate anew, which is all that can
change while it runs: the settings are its command line's. A second SIGTERM ends it at once, and
whatever hangs, it is gone within GATEWAY_WITHIN seconds of the first.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
import trio

from whatsappd import garbage_collection
from whatsappd.errors import BadStateDirectory
from whatsappd.gateway.app import Application
from whatsappd.gateway.auth import ApiKeys, Authenticator, NoAuthentication
from whatsappd.gateway.connection import HttpConnection, HttpService
from whatsappd.gateway.daemon_link import DaemonLink
from whatsappd.gateway.listener import GuardedListener, GuardedStream, open_socket
from whatsappd.gateway.settings import GatewaySettings
from whatsappd.gateway.tls import Certificates, certificates_of
from whatsappd.gateway.webhooks.deliverer import run_deliverer
from whatsappd.logs.setup import close_logs
from whatsappd.shutdown import GATEWAY_WITHIN, ShutdownGuard, SignalRequests
from whatsappd.supervision import Supervision

log = structlog.get_logger()

#: Seconds that requests still have when the gateway is told to stop.
STOP_WITHIN = 5.0
#: Seconds between tries when there is no file descriptor or memory left. Nothing announces one.
ACCEPT_PAUSE = 0.1
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def run_gateway(
    settings: GatewaySettings,
    *,
    authenticate: Callable[[DaemonLink], Authenticator] = ApiKeys,
    guard: ShutdownGuard | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until SIGTERM or SIGINT; the daemon may come and go meanwhile.

    Args:
        authenticate: makes what tells who sends a request, given the way to the daemon.
        guard: hears the signals. By default one is made here, which takes that this process has
            no other threads yet.

    Raises:
        InvalidParams: the settings would let strangers in, or cannot be used.
        AlreadyRunning: the address is taken.
    """
    settings.check()
    if guard is None:
        guard = ShutdownGuard(close_logs, within_s=GATEWAY_WITHIN)
        guard.listen()
    _raise_descriptor_limit()
    certificates = certificates_of(settings)
    link = DaemonLink(settings.socket)
    authenticator = NoAuthentication() if settings.no_auth else authenticate(link)
    app = Application(link, authenticator, settings.exposure)
    listening = open_socket(settings.bind, settings.socket_group)
    port: int = listening.getsockname()[1] if settings.bind.path is None else 0
    service = HttpService(app, app.stopping, settings.behind_proxy)
    supervision: Supervision = app.supervision
    hurry = trio.CancelScope()
    requests = SignalRequests(hurry)
    async with GuardedListener(listening) as listener, trio.open_nursery() as linking:
        link.report(listener.report)
        linking.start_soon(guard.signals, requests.take)
        linking.start_soon(supervision.keep, "reload", partial(_reload, requests, certificates))
        linking.start_soon(supervision.keep, "link", link.run)
        deliver = partial(run_deliverer, settings.socket, allow_private=settings.private_webhooks)
        linking.start_soon(supervision.keep, "deliverer", deliver)
        with hurry:
            async with trio.open_nursery() as serving:
                await serving.start(serve_http, service, listener, certificates, supervision)
                log.info(
                    "gateway_ready",
                    bind=str(settings.bind._replace(port=port)),
                    tls=settings.has_tls,
                    authentication=not settings.no_auth,
                    daemon=str(settings.socket),
                )
                garbage_collection.settle()
                task_status.started(port)
                await requests.stopping.wait()
                log.info("gateway_stopping", within_s=STOP_WITHIN)
                app.stopping.set()
        linking.cancel_scope.cancel()
    log.info("gateway_stopped")


async def _reload(requests: SignalRequests, certificates: Certificates | None) -> None:
    """Read the certificate anew for each SIGHUP, until cancelled."""
    while True:
        await requests.wait_for_reload()
        if certificates is None:
            log.info("nothing_to_reload", reason="there is no certificate")
        else:
            await certificates.reload()


async def serve_http(
    service: HttpService,
    listener: GuardedListener,
    certificates: Certificates | None,
    supervision: Supervision,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Serve until `service.stopping`; then requests have STOP_WITHIN seconds to end."""
    open_now: set[HttpConnection] = set()

    async def handle(guarded: GuardedStream) -> None:
        connection = HttpConnection(
            service,
            guarded
            if certificates is None
            else trio.SSLStream(
                guarded, certificates.context, server_side=True, https_compatible=True
            ),
        )
        open_now.add(connection)
        try:
            await connection.serve()
        except Exception as error:  # ends this connection only
            log.warning("connection_failed", address=guarded.address, exc_info=error)
        finally:
            open_now.discard(connection)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(guarded)  # at once, whatever it is in the middle of
            listener.release(guarded)

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as nursery:
            accept = partial(_accept, listener, handle, connections)
            nursery.start_soon(
                partial(supervision.keep, "http", accept, fatal=(BadStateDirectory,))
            )
            task_status.started()
            await service.stopping.wait()
            nursery.cancel_scope.cancel()
        await listener.aclose()
        for connection in list(open_now):  # the others end with the request that they serve
            connection.end_if_idle()
        with trio.move_on_after(STOP_WITHIN):
            await listener.wait_empty()
        await listener.cut_all()
        connections.cancel_scope.cancel()


async def _accept(
    listener: GuardedListener,
    handle: Callable[[GuardedStream], Awaitable[None]],
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


def _raise_descriptor_limit() -> None:
    # A stream holds two descriptors: its client's, and its connection to the daemon.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
