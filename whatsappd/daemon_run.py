"""What one run of the daemon has from its beginning to its end, made by `app`."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from whatsappd.config.live import LiveSettings
from whatsappd.rpc.listener import Listener
from whatsappd.shutdown import ShutdownGuard
from whatsappd.state_directory import StateDirectory
from whatsappd.supervision import Supervision
from whatsappd.systemd import Launch


@dataclass(frozen=True)
class DaemonRun:
    """The daemon owns its state directory as long as this is in use.

    Attributes:
        mode: `real` or `sandbox`.
        launch: how it was started, and how systemd is told of it.
        listener: the socket that it was started with; None: it makes its own.
        guard: hears the signals, and ends the process should it not end in time.
        stopping: set when it is to end.
        started_s: when it was started, by `time.monotonic`.
    """

    live: LiveSettings
    state: StateDirectory
    mode: str
    launch: Launch
    listener: Listener | None
    guard: ShutdownGuard
    supervision: Supervision
    stopping: trio.Event
    started_s: float
