"""The composition root: opens everything in order, closes it in reverse; where the parts meet.

Order: lock, mode, database, sandbox, fork server, sessions, socket. A part is started only when
all it relies on is up, and outlives all that relies on it.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import pwd
import resource
import signal
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import structlog
import trio

from whatsappd.api.access import AccessControl
from whatsappd.api.table import ApiParts, build_table
from whatsappd.config.access import group_id
from whatsappd.config.live import LiveSettings
from whatsappd.config.load import load
from whatsappd.config.settings import Settings
from whatsappd.derive import alert_thresholds, retention, send_limits, session_settings
from whatsappd.errors import BadConfiguration, Denied, StoreFailed
from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.port import Limiter, LimiterHealth
from whatsappd.lock import hold_lock
from whatsappd.logs import configure_logs
from whatsappd.monitoring.loop import LoopClock
from whatsappd.monitoring.monitor import Monitor, Watched
from whatsappd.monitoring.scrape import Scrape, Served
from whatsappd.rpc.connection import MaySpeak
from whatsappd.rpc.listener import (
    Listener,
    check_path,
    close_listener,
    inherited_listener,
    open_listener,
)
from whatsappd.rpc.server import RpcServer, root_and_this_user, serve_rpc
from whatsappd.sandboxing import SandboxHandle, own_sandbox, sandbox_at
from whatsappd.sessions.forkserver import ForkServer
from whatsappd.sessions.housekeeping import Housekeeping
from whatsappd.sessions.inbound import InboundLog
from whatsappd.sessions.pacing import Shared
from whatsappd.sessions.pool import Pool
from whatsappd.sessions.process import become_subreaper
from whatsappd.sessions.settings import WhatsAppAccess
from whatsappd.state import REAL, SANDBOX, StateDirectory
from whatsappd.store.alerts import Alerts
from whatsappd.store.audit import AuditTrail
from whatsappd.store.companies import Companies
from whatsappd.store.contacts import Contacts
from whatsappd.store.database import Database, open_database
from whatsappd.store.events import open_event_log
from whatsappd.store.intake import Intake
from whatsappd.store.keys import open_keys
from whatsappd.store.outbox import open_outbox
from whatsappd.store.webhooks import Webhooks
from whatsappd.systemd import (
    Launch,
    Notify,
    extend_while_stopping,
    keep_alive,
    show_status,
    take_launch,
)

log = structlog.get_logger()

#: A clean stop takes at most this long, in seconds: running requests are answered, sessions
#: disconnect in parallel, and what remains is killed.
STOP_WITHIN = 15.0

#: The system user that systemd/whatsappd-gateway.service runs as.
GATEWAY_USER = "whatsappd-gateway"


async def run_daemon(live: LiveSettings) -> None:
    """Be the daemon until SIGTERM or SIGINT; a second one hurries. SIGHUP reloads the settings.

    Raises:
        AlreadyRunning: another daemon holds the state directory or the socket.
        BadStateDirectory: the directory, or the socket's path, cannot be used.
        StoreFailed: the database cannot be used.
        SandboxFailed: the sandbox did not come up.
    """
    started = time.monotonic()
    settings = live.settings
    for warning in live.warnings:
        log.warning("configuration_doubtful", reason=warning)
    # The watchdog aborts a daemon that hangs: then its log says where.
    faulthandler.enable()
    launch = take_launch(os.environ)
    listener = inherited_listener(launch.socket) if launch.socket is not None else None
    socket = Path(listener.path) if listener else settings.socket
    check_path(str(socket))
    os.umask(0o077)
    _raise_descriptor_limit()
    become_subreaper()
    state = StateDirectory(settings.state_dir)
    state.prepare()
    mode = SANDBOX if settings.is_sandboxed else REAL
    async with AsyncExitStack() as stack:
        purpose = f"the state directory {state.root}"
        stack.enter_context(hold_lock(state.lock, socket=socket, purpose=purpose))
        state.claim_mode(mode)
        with trio.CancelScope() as hurry:
            async with trio.open_nursery() as signals:
                stopping = await signals.start(_watch_signals, hurry, live, launch.notify)
                await _run_parts(live, state, mode, launch, listener, stopping, started)
                signals.cancel_scope.cancel()
    log.info("stopped")


async def _run_parts(
    live: LiveSettings,
    state: StateDirectory,
    mode: str,
    launch: Launch,
    listener: Listener | None,
    stopping: trio.Event,
    started: float,
) -> None:
    settings = live.settings
    notify = launch.notify
    supervision_settings = session_settings(settings)
    live.follow(lambda changed: configure_logs(changed.log_level, changed.log_format))
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(state.database))
        events = await open_event_log(database)
        outbox = await open_outbox(database, events)
        companies = Companies(database)
        contacts = Contacts(database)
        keys = await open_keys(database)
        audit = AuditTrail(database)
        housekeeping = Housekeeping(events, outbox, retention(settings))
        live.follow(lambda changed: housekeeping.keep(retention(changed)))
        sandbox = await _open_sandbox(settings, state, stack)
        fork_server = ForkServer(environment=_worker_environment(sandbox))
        limiter = await _open_limiter(settings.limits.redis_url, stack)
        pool = Pool(
            state=state,
            fork_server=fork_server,
            companies=companies,
            inbound=InboundLog(
                events,
                Intake(database, events, outbox, contacts),
                retry_s=supervision_settings.retry_store_s,
            ),
            outbox=outbox,
            access=sandbox.access if sandbox else WhatsAppAccess,
            settings=supervision_settings,
            pacing=Shared(
                limiter=limiter,
                companies=companies,
                contacts=contacts,
                events=events,
                outbox=outbox,
                defaults=lambda: send_limits(live.settings),
            ),
            foreign_children=lambda: {sandbox.pid} if sandbox and sandbox.pid else set(),
        )
        live.follow(lambda _changed: pool.limits_changed())
        clock = LoopClock()
        trio.lowlevel.add_instrument(clock)
        watched = Watched(
            state_dir=state.root,
            database=database,
            outbox=outbox,
            pool=pool,
            fork_server=fork_server,
            alerts=Alerts(database, events),
            thresholds=lambda: alert_thresholds(live.settings),
            limiter=lambda: limiter.health,
            interval_s=supervision_settings.health_interval_s,
        )
        monitor = Monitor(watched, clock)
        access = AccessControl(os.geteuid())
        access.use(settings.access)
        parts = ApiParts(
            access=access,
            mode=mode,
            state_dir=state.root,
            socket=Path(listener.path) if listener else settings.socket,
            events=events,
            outbox=outbox,
            keys=keys,
            audit=audit,
            webhooks=Webhooks(database, events),
            pool=pool,
            fork_server=fork_server,
            sandbox=sandbox,
            settings=supervision_settings,
            database=database,
            log_level=partial(_log_level, live),
            monitor=monitor,
            scrape=Scrape(watched, monitor, clock, events, mode),
        )
        async with trio.open_nursery() as supervision:
            supervision.start_soon(fork_server.run)
            supervision.start_soon(housekeeping.run)
            supervision.start_soon(keys.run)
            supervision.start_soon(audit.run)
            if launch.watchdog_s is not None:
                trouble = partial(_trouble, database, monitor)
                supervision.start_soon(keep_alive, notify, launch.watchdog_s, trouble)
            async with trio.open_nursery() as sessions:
                await sessions.start(pool.run)
                sessions.start_soon(monitor.run)
                await _serve(live, parts, listener, notify, stopping, started)
                sessions.start_soon(extend_while_stopping, notify, pool.count_workers)
                await pool.shut_down()
                sessions.cancel_scope.cancel()
            supervision.cancel_scope.cancel()


async def _trouble(database: Database, monitor: Monitor) -> str | None:
    """What is wrong with the daemon as a whole, for the watchdog; None if nothing is.

    That this runs says that the event loop turns. A disk that refuses writes is no reason to be
    killed: a new daemon would find the same disk.
    """
    with suppress(StoreFailed):
        await database.write(lambda _conn: None)
    return None if monitor.is_alive else "the rounds of health checks do not end any more"


async def _serve(
    live: LiveSettings,
    parts: ApiParts,
    inherited: Listener | None,
    notify: Notify,
    stopping: trio.Event,
    started: float,
) -> None:
    """Serve the socket until `stopping`; then answer what is running, and remove the socket."""
    settings = live.settings
    table, daemon_api, events_api = build_table(parts)
    listener = inherited or open_listener(
        settings.socket,
        mode=settings.socket_mode,
        group=group_id(settings.socket_group) if settings.socket_group else None,
    )

    async def changed() -> None:
        await parts.events.wait_beyond(parts.events.last_seq)

    try:
        async with trio.open_nursery() as serving:
            server: RpcServer = await serving.start(
                partial(
                    serve_rpc,
                    listener.socket,
                    table,
                    allow=parts.access.allow,
                    may_speak=_gateway_trust(),
                )
            )
            live.follow(lambda changed: _use_rules(parts.access, server, changed))
            daemon_api.connections = lambda: server.connections
            parts.scrape.served = Served(server, table, events_api.lags)
            elapsed_ms = round((time.monotonic() - started) * 1000)
            log.info(
                "ready",
                socket=listener.path,
                mode=parts.mode,
                pid=os.getpid(),
                elapsed_ms=elapsed_ms,
            )
            notify.ready(parts.pool.describe())
            _settle_memory()
            async with trio.open_nursery() as showing:
                if notify.is_heard:
                    showing.start_soon(show_status, notify, parts.pool.describe, changed)
                await stopping.wait()
                showing.cancel_scope.cancel()
            log.info("stopping", within_s=STOP_WITHIN)
            notify.stopping()
            server.stop()
    finally:
        close_listener(listener)


def _log_level(live: LiveSettings, level: str | None) -> str:
    if level is not None:
        live.set("log_level", level)
    return live.settings.log_level


def _use_rules(access: AccessControl, server: RpcServer, settings: Settings) -> None:
    access.use(settings.access)
    error = Denied("the access rules were changed, and took rights from this user: connect again")
    ended = server.end(access.took_from, error)
    if ended:
        log.info("connections_ended", count=ended, reason="the access rules were changed")


async def _reload(live: LiveSettings, notify: Notify, one_at_a_time: trio.Lock) -> None:
    async with one_at_a_time:
        notify.reloading()
        await _take_settings(live)
        notify.reloaded()


async def _take_settings(live: LiveSettings) -> None:
    """Read the settings again; wrong ones change nothing."""
    try:
        # In a thread: looking up users and groups may wait for a directory service.
        configuration = await trio.to_thread.run_sync(load, live.sources, abandon_on_cancel=True)
    except BadConfiguration as error:
        log.error("configuration_not_reloaded", reason=error.message, **error.data)
        return
    reload = live.take(configuration)
    for warning in live.warnings:
        log.warning("configuration_doubtful", reason=warning)
    log.info(
        "configuration_reloaded",
        applied=[str(change) for change in reload.applied],
        needs_restart=[str(change) for change in reload.needs_restart],
    )


async def _open_sandbox(
    settings: Settings, state: StateDirectory, stack: AsyncExitStack
) -> SandboxHandle | None:
    if settings.sandbox_at is not None:
        return sandbox_at(settings.sandbox_at)
    if settings.sandbox:
        return await stack.enter_async_context(own_sandbox(state.sandbox))
    return None


async def _open_limiter(redis_url: str, stack: AsyncExitStack) -> Limiter:
    if not redis_url:
        return MemoryLimiter()
    try:
        from whatsappd.limits.redis import open_redis_limiter
    except ImportError as error:
        raise BadConfiguration(
            f"limits.redis_url: {error.name} is missing; install whatsappd[redis], or leave "
            "redis_url out",
            problems=[],
        ) from error

    def on_change(health: LimiterHealth) -> None:
        if health.trouble is None:
            log.info("redis_in_use")
        else:
            log.warning("redis_away", reason=health.trouble, instead="limits in memory")

    return await stack.enter_async_context(open_redis_limiter(redis_url, on_change=on_change))


def _gateway_trust() -> MaySpeak:
    """Who may say for whom they call: root, our own user, and the gateway's if there is one."""
    try:
        gateway = pwd.getpwnam(GATEWAY_USER).pw_uid
    except KeyError:
        return root_and_this_user
    return lambda peer: peer.uid == gateway or root_and_this_user(peer)


def _worker_environment(sandbox: SandboxHandle | None) -> dict[str, str]:
    environment = dict(os.environ)
    # A business is no bot; neonize would tag direct messages with <bot biz_bot=1>.
    environment["NEONIZE_BOT_TAG"] = "off"
    if sandbox is not None:
        environment.update(sandbox.environment())
    return environment


def _settle_memory() -> None:
    """Spare the collector what lives as long as the daemon, and let it run less often.

    By default it runs every 700 allocations, and takes up to a third of the time of a daemon with
    a thousand connections.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)


def _raise_descriptor_limit() -> None:
    """Use all the descriptors this process may have: each session and connection holds some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _watch_signals(
    hurry: trio.CancelScope,
    live: LiveSettings,
    notify: Notify,
    *,
    task_status: trio.TaskStatus[trio.Event],
) -> None:
    stopping = trio.Event()
    one_at_a_time = trio.Lock()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        async with trio.open_nursery() as reloads:
            task_status.started(stopping)
            async for number in received:
                if number == signal.SIGHUP:
                    if not stopping.is_set():
                        reloads.start_soon(_reload, live, notify, one_at_a_time)
                elif stopping.is_set():
                    log.warning("stopping_at_once")
                    hurry.cancel()
                else:
                    stopping.set()
