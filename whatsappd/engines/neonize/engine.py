"""The engine that runs on neonize: a fork server makes its workers, and its databases are asked.

Made by `app`; the rest of the daemon knows it as an `engines.port.Engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from whatsappd.engines.neonize.send_evidence import find_attempts
from whatsappd.engines.neonize.spawn import ForkServer
from whatsappd.engines.port import AttemptEvidence, EngineStatus, OnRefusedCall, WhatsAppAccess
from whatsappd.engines.protocol import ACCOUNT
from whatsappd.engines.worker_process import WorkerProcess


class NeonizeEngine:
    """An `engines.port.Engine`. `access` is asked anew for each worker."""

    def __init__(self, fork_server: ForkServer, access: Callable[[], WhatsAppAccess]) -> None:
        self._fork_server = fork_server
        self._access = access

    @property
    def status(self) -> EngineStatus:
        return self._fork_server.status

    async def run(self) -> None:
        await self._fork_server.run()

    def give_up(self) -> None:
        self._fork_server.give_up()

    async def start_worker(
        self, company: str, directory: Path, on_refused_call: OnRefusedCall
    ) -> WorkerProcess:
        access = self._access()
        spawned = await self._fork_server.spawn(company, directory=directory, ports=access.ports)
        return WorkerProcess(company, spawned, access=access, on_refused_call=on_refused_call)

    async def find_attempts(
        self, directory: Path, secrets: Collection[bytes], *, jid: str | None
    ) -> AttemptEvidence:
        return await find_attempts(directory / ACCOUNT, secrets, jid=jid)
