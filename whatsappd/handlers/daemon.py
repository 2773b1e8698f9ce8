"""`daemon.hello`, `daemon.configure`, `daemon.status`: version, log level, state of the daemon."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from whatsappd import __version__
from whatsappd.api import daemon as api
from whatsappd.api.declaration import NoParams
from whatsappd.clock import now_ms
from whatsappd.engines.confined import Confined
from whatsappd.engines.port import Engine
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.sessions import shown_session
from whatsappd.model.event import EVENT_FORMAT
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.user_shares import ConnectionCounts
from whatsappd.sessions.pool import Pool
from whatsappd.store.port import EventLog


class DaemonFacts(NamedTuple):
    """How this daemon runs, which stays as it is until its end.

    Attributes:
        mode: `real` or `sandbox`.
        sandbox: tells where the sandbox is; None in real mode.
        log_level: sets the log level, unless it is given None, and returns the one in force.
    """

    mode: str
    state_dir: Path
    socket: Path
    sandbox: Callable[[], api.SandboxPlace | None]
    log_level: Callable[[str | None], str]


class DaemonApi:
    """
    Args:
        table: of all methods, whose names `daemon.hello` tells.
    """

    def __init__(
        self,
        facts: DaemonFacts,
        access: AccessControl,
        pool: Pool,
        engine: Engine,
        events: EventLog,
        table: MethodTable,
        connections: ConnectionCounts,
    ) -> None:
        self._facts = facts
        self._access = access
        self._pool = pool
        self._engine = engine
        self._events = events
        self._table = table
        self._connections = connections
        self._started_ms = now_ms()

    def methods(self) -> list[Method]:
        return [
            Method(api.HELLO, self._hello),
            Method(api.CONFIGURE, self._configure),
            Method(api.STATUS, self._status),
        ]

    def _hello(self, _call: Call, _params: NoParams) -> api.Hello:
        return api.Hello(
            name="whatsappd",
            version=__version__,
            protocol=api.PROTOCOL,
            events=EVENT_FORMAT,
            pid=os.getpid(),
            mode=self._facts.mode,
            methods=list(self._table),
            started_ms=self._started_ms,
        )

    def _configure(self, _call: Call, params: api.ConfigureDaemon) -> api.DaemonSettings:
        return api.DaemonSettings(log_level=self._facts.log_level(params.log_level))

    def _confinement(self) -> api.ConfinementInfo:
        """What confines workers, and what is lacking; unknown until the first worker is started."""
        engine = self._engine.status
        confined = engine.confined
        return api.ConfinementInfo(
            wanted=engine.confinement,
            **(Confined() if confined is None else confined)._asdict(),
            known=confined is not None,
        )

    def _status(self, call: Call, _params: NoParams) -> api.DaemonStatus:
        """Answer `daemon.status`.

        Directories and the state of the daemon's own parts are shown only to callers who may read
        all companies.
        """
        readable = self._access.readable(call, "daemon.status")
        sees_all = readable is None
        return api.DaemonStatus(
            version=__version__,
            pid=os.getpid(),
            mode=self._facts.mode,
            state_dir=str(self._facts.state_dir) if sees_all else None,
            socket=str(self._facts.socket),
            started_ms=self._started_ms,
            connections=self._connections.open if sees_all else None,
            last_seq=self._events.last_seq,
            fork_server=self._fork_server_info() if sees_all else None,
            confinement=self._confinement() if sees_all else None,
            sandbox=self._facts.sandbox() if sees_all else None,
            companies=[
                shown_session(status, codes=self._access.may_link(call, status.company))
                for status in self._pool.statuses(readable)
            ],
        )

    def _fork_server_info(self) -> api.ForkServerInfo:
        server = self._engine.status
        return api.ForkServerInfo(pid=server.pid, restarts=server.restarts, problem=server.problem)
