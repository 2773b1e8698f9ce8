"""Reads the daemon's settings again when it gets SIGHUP.

Started by `app`; `shutdown` receives the signals.
"""

from __future__ import annotations

import structlog
import trio

from whatsappd.config.live import LiveSettings
from whatsappd.config.load import load
from whatsappd.errors import BadConfiguration
from whatsappd.shutdown import SignalRequests
from whatsappd.systemd import Notify

log = structlog.get_logger()

#: Seconds for reading the settings again. Looking up users and groups may wait for other hosts.
RELOAD_WITHIN = 30.0


async def reload_whenever_asked(
    requests: SignalRequests, live: LiveSettings, notify: Notify
) -> None:
    """Read the settings again for each SIGHUP, until cancelled.

    If the new settings are wrong or cannot be read in time, the old ones stay in force, and the log
    says why.
    """
    while True:
        await requests.wait_for_reload()
        if requests.stopping.is_set():
            continue
        notify.reloading()
        try:
            with trio.fail_after(RELOAD_WITHIN):
                await _take_settings(live)
        except trio.TooSlowError:
            reason = f"reading it takes longer than {RELOAD_WITHIN:g} s: what is its directory on?"
            log.error("configuration_not_reloaded", reason=reason)
        except Exception as error:
            # The settings in force stay, whatever went wrong.
            log.error("configuration_not_reloaded", reason=f"{type(error).__name__}: {error}")
            raise
        finally:
            notify.reloaded()


async def _take_settings(live: LiveSettings) -> None:
    """Read the settings and use them; if they are wrong, log that and keep the old ones."""
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
