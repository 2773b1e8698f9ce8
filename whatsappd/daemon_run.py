"""The parts that one run of the daemon has from its beginning to its end; made by `app`."""

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
    """One run of the daemon, which owns its state directory meanwhile.

    Attributes:
        mode: `real` or `sandbox`.
        launch: how systemd started the daemon, and the way to notify systemd.
        listener: the socket that systemd passed in; None if the daemon makes its own.
        guard: receives the signals, and kills the process if it does not end in time.
        stopping: set when the daemon is to stop.
        started_s: the start, by `time.monotonic`.
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
