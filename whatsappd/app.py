"""The composition root: makes all parts of the daemon, opens them in order, closes them in reverse.

Order: lock, mode, database, sandbox, fork server, sessions, socket. A part starts when everything
that it relies on is up, and ends after everything that relies on it.
"""

from __future__ import annotations

import os
import resource
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import structlog
import trio
from msgspec import structs

from whatsappd import __version__
from whatsappd.config.live import LiveSettings
from whatsappd.config.settings import Settings
from whatsappd.daemon_run import DaemonRun
from whatsappd.daemon_socket import serve
from whatsappd.engines.child_process import become_subreaper, reap_strays
from whatsappd.engines.neonize.engine import NeonizeEngine
from whatsappd.engines.neonize.spawn import Confinement, ForkServer
from whatsappd.engines.neonize.worker_environment import ports_through, worker_environment
from whatsappd.engines.port import Engine, WhatsAppAccess
from whatsappd.errors import BadConfiguration, OwnershipLost, StoreFailed
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.table import ApiParts
from whatsappd.handlers.webhook_delivery import WebhookDelivery
from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.port import Limiter, LimiterHealth
from whatsappd.logs.setup import configure_logs, log_writer, report_crashes
from whatsappd.monitoring.event_loop_clock import LoopClock
from whatsappd.monitoring.health_rounds import HealthRounds
from whatsappd.monitoring.watched import (
    Watched,
    WatchedHost,
    WatchedSessions,
    WatchedStore,
    WatchSettings,
)
from whatsappd.owner_lock import hold_lock
from whatsappd.restore import finish_restore
from whatsappd.rpc.listener import check_path, inherited_listener
from whatsappd.sandbox_process import SandboxHandle, own_sandbox, sandbox_at
from whatsappd.sessions.clock_watch import ClockWatch
from whatsappd.sessions.housekeeping import Housekeeping
from whatsappd.sessions.inbound import InboundLog
from whatsappd.sessions.pacing import PacingParts
from whatsappd.sessions.pool import Pool
from whatsappd.sessions.session_parts import SessionParts
from whatsappd.shutdown import CLOSE_WITHIN, ShutdownGuard, SignalRequests
from whatsappd.signals import reload_whenever_asked
from whatsappd.state_directory import REAL, SANDBOX, Place, StateDirectory
from whatsappd.store.audit_trail import AuditTrail
from whatsappd.store.port import KeyRing, StoreHealth
from whatsappd.store.sqlite.backup import SqliteBackups
from whatsappd.store.sqlite.store import open_sqlite_store
from whatsappd.supervision import Supervision
from whatsappd.systemd import keep_alive, show_stopping, take_launch

log = structlog.get_logger()


async def run_daemon(live: LiveSettings, guard: ShutdownGuard) -> None:
    """Run the daemon until SIGTERM or SIGINT; a second one stops it at once. SIGHUP reloads the
    settings.

    Args:
        guard: receives the signals, and kills the process if it does not end in time.

    Raises:
        AlreadyRunning: another daemon holds the state directory or the socket.
        BadStateDirectory: the directory, or the socket's path, cannot be used.
        OwnershipLost: the lock file was removed or replaced while the daemon ran.
        StoreFailed: the database cannot be used.
        SandboxFailed: the sandbox did not come up.
    """
    started = time.monotonic()
    settings = live.settings
    for warning in live.warnings:
        log.warning("configuration_doubtful", reason=warning)
    # The watchdog aborts a daemon that hangs: then its log says where.
    report_crashes()
    launch = take_launch(os.environ)
    listener = inherited_listener(launch.socket) if launch.socket is not None else None
    socket = Path(listener.path) if listener else settings.socket.path
    check_path(str(socket))
    os.umask(0o077)
    _raise_descriptor_limit()
    become_subreaper()
    state = StateDirectory(settings.state.directory)
    state.prepare()
    mode = SANDBOX if settings.is_sandboxed else REAL
    async with AsyncExitStack() as stack:
        purpose = f"the state directory {state.root}"
        lock = stack.enter_context(hold_lock(state.lock, socket=socket, purpose=purpose))
        if finish_restore(state):
            log.info("restore_finished")
        state.claim_mode(mode)
        supervision = Supervision()
        with trio.CancelScope() as hurry:
            async with trio.open_nursery() as signals:
                requests = SignalRequests(hurry)
                listen = partial(guard.signals, requests.take)
                signals.start_soon(supervision.keep, "signals", listen)
                reload = partial(reload_whenever_asked, requests, live, launch.notify)
                signals.start_soon(supervision.keep, "reload", reload)
                watch = partial(supervision.keep, "lock", lock.watch, fatal=(OwnershipLost,))
                signals.start_soon(watch)
                run = DaemonRun(
                    live=live,
                    state=state,
                    mode=mode,
                    launch=launch,
                    listener=listener,
                    guard=guard,
                    supervision=supervision,
                    stopping=requests.stopping,
                    started_s=started,
                )
                await _run_parts(run)
                signals.cancel_scope.cancel()
    log.info("stopped")


async def _run_parts(run: DaemonRun) -> None:
    """Open all parts, serve the socket until the daemon is to stop, and close them."""
    live, state, supervision = run.live, run.state, run.supervision
    settings, notify = live.settings, run.launch.notify
    session_settings = structs.replace(
        settings.sessions, library_log_level=settings.logs.level.upper()
    )
    live.follow(lambda changed: configure_logs(changed.logs.level, changed.logs.format))
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_sqlite_store(state.database, state.company))
        audit = AuditTrail(store.audit)
        webhook_delivery = WebhookDelivery(store.webhooks, store.events)
        housekeeping = Housekeeping(store.events, store.outbox, settings.retention)
        live.follow(lambda changed: housekeeping.keep(changed.retention))
        sandbox = await _open_sandbox(settings, state, stack, supervision)
        environment = worker_environment(
            {**os.environ, **(sandbox.environment() if sandbox else {})}
        )
        fork_server = ForkServer(
            environment=environment,
            confinement=Confinement(
                companies=state.companies,
                apart=[state.root, *([live.file] if live.file else [])],
                wanted=settings.engine.confinement,
            ),
        )
        direct = WhatsAppAccess(ports=ports_through(environment))
        engine = NeonizeEngine(fork_server, sandbox.access if sandbox else lambda: direct)
        limiter = await _open_limiter(settings.limiter.redis_url, stack, supervision)
        pool = Pool(
            state=state,
            sessions=SessionParts(
                engine=engine,
                companies=store.companies,
                inbound=InboundLog(
                    store.events, store.inbound, retry_s=session_settings.retry_store_s
                ),
                outbox=store.outbox,
                settings=session_settings,
            ),
            removals=store.removals,
            pacing=PacingParts(
                limiter=limiter,
                store=store,
                defaults=lambda: live.settings.send_limits,
            ),
            foreign_children=lambda: {sandbox.pid} if sandbox and sandbox.pid else set(),
            supervision=supervision,
        )
        await pool.load()
        live.follow(lambda _changed: pool.limits_changed())
        clock = LoopClock()
        trio.lowlevel.add_instrument(clock)
        watched = Watched(
            store=WatchedStore(
                health=store.health,
                events=store.events,
                consumers=store.consumers,
                outbox=store.outbox.view,
                alerts=store.alerts,
                webhooks=store.webhooks,
                deliverer_away_ms=webhook_delivery.away_ms,
            ),
            sessions=WatchedSessions(pool, engine, limiter=lambda: limiter.health),
            host=WatchedHost(
                state.root,
                places=[Place.of(state.root), Place.of(state.database)],
                log=log_writer(),
            ),
            settings=WatchSettings(
                alerts=lambda: live.settings.alerts,
                recycling=lambda: live.settings.recycling,
                interval_s=session_settings.health_interval_s,
            ),
            supervision=supervision,
        )
        health = HealthRounds(watched, clock)
        access = AccessControl(os.geteuid(), store.keys.find, audit.record)
        access.use(settings.access)
        parts = ApiParts(
            access=access,
            mode=run.mode,
            state_dir=state.root,
            socket=Path(run.listener.path) if run.listener else settings.socket.path,
            store=store,
            audit=audit,
            webhook_delivery=webhook_delivery,
            pool=pool,
            engine=engine,
            sandbox=sandbox,
            settings=session_settings,
            backups=SqliteBackups(
                state.database, state.backups, state.accounts, version=__version__, mode=run.mode
            ),
            log_level=partial(_log_level, live),
            health=health,
            watched=watched,
        )
        keep = supervision.keep
        async with trio.open_nursery() as outer:
            outer.start_soon(keep, "fork_server", engine.run)
            outer.start_soon(keep, "reaper", partial(reap_strays, pool.children))
            clock_watch = ClockWatch(store.outbox.maintenance.shift, pool.shift)
            _keep_house(outer, supervision, housekeeping, clock_watch, store.keys, audit)
            if run.launch.watchdog_s is not None:
                trouble = partial(_trouble, store.health, health)
                outer.start_soon(
                    keep, "watchdog", partial(keep_alive, notify, run.launch.watchdog_s, trouble)
                )
            async with trio.open_nursery() as sessions:
                sessions.start_soon(keep, "pool", pool.run)
                sessions.start_soon(keep, "monitor", health.run)
                await serve(run, parts)
                sessions.start_soon(show_stopping, notify, run.guard.within_s, pool.count_workers)
                await _end_sessions(pool, engine, run.guard)
                sessions.cancel_scope.cancel()
            outer.cancel_scope.cancel()


def _keep_house(
    nursery: trio.Nursery,
    supervision: Supervision,
    housekeeping: Housekeeping,
    clock_watch: ClockWatch,
    keys: KeyRing,
    audit: AuditTrail,
) -> None:
    """Start the tasks that maintain the store."""
    keep = supervision.keep
    nursery.start_soon(keep, "expiry", housekeeping.expire)
    nursery.start_soon(keep, "retention", housekeeping.retain)
    nursery.start_soon(keep, "clock", clock_watch.run)
    nursery.start_soon(keep, "keys", keys.run)
    nursery.start_soon(keep, "audit", audit.run)


async def _end_sessions(pool: Pool, engine: Engine, guard: ShutdownGuard) -> None:
    """Stop all sessions; kill the workers of those that do not end in time."""
    with trio.move_on_after(guard.left_s - CLOSE_WITHIN) as in_time:
        await pool.shut_down()
    if in_time.cancelled_caught:
        log.warning("sessions_cut_off", companies=pool.cut_off())
        engine.give_up()


async def _trouble(store: StoreHealth, health: HealthRounds) -> str | None:
    """What is wrong with the daemon as a whole, for systemd's watchdog; None if nothing is.

    The event loop works, or this would not run. A disk that refuses writes is not reported, because
    a restarted daemon would find the same disk.
    """
    with suppress(StoreFailed):
        await store.answer()
    return None if health.is_alive else "the rounds of health checks do not end any more"


def _log_level(live: LiveSettings, level: str | None) -> str:
    if level is not None:
        live.set("log_level", level)
    return live.settings.logs.level


async def _open_sandbox(
    settings: Settings, state: StateDirectory, stack: AsyncExitStack, supervision: Supervision
) -> SandboxHandle | None:
    if settings.sandbox_at is not None:
        return sandbox_at(settings.sandbox_at)
    if settings.sandbox:
        return await stack.enter_async_context(own_sandbox(state.sandbox, supervision))
    return None


async def _open_limiter(redis_url: str, stack: AsyncExitStack, supervision: Supervision) -> Limiter:
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

    return await stack.enter_async_context(
        open_redis_limiter(redis_url, supervision, on_change=on_change)
    )


def _raise_descriptor_limit() -> None:
    """Use all the descriptors this process may have: each session and connection holds some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
