"""What signals mean to a running daemon: an end, or settings to read again.

Called by `app`.
"""

from __future__ import annotations

import signal

import structlog
import trio

from whatsappd.config.live import LiveSettings
from whatsappd.config.load import load
from whatsappd.errors import BadConfiguration
from whatsappd.systemd import Notify

log = structlog.get_logger()


async def watch_signals(
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
        reload = live.take(configuration)
    except BadConfiguration as error:
        log.error("configuration_not_reloaded", reason=error.message, **error.data)
        return
    for warning in live.warnings:
        log.warning("configuration_doubtful", reason=warning)
    log.info(
        "configuration_reloaded",
        applied=[str(change) for change in reload.applied],
        needs_restart=[str(change) for change in reload.needs_restart],
    )
