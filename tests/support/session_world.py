"""A session between the real store and workers whose answers the test writes.

They speak the protocol and are no WhatsApp clients: what is under test is the session. For
`tests/process`, whose conftest makes a `world`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

import trio
from fake_engine import FakeEngine

from whatsappd.engines.child_process import ChildProcess
from whatsappd.engines.port import OnRefusedCall, WhatsAppAccess
from whatsappd.engines.protocol import WorkerMethod
from whatsappd.engines.worker_process import SpawnedProcess, WorkerProcess
from whatsappd.errors import InvalidParams, WhatsappdError, WorkerFailed
from whatsappd.sessions.inbound import InboundLog
from whatsappd.sessions.session import CompanySession
from whatsappd.sessions.session_parts import SessionParts
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.port import EventLog, Outbox
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.store import store_in
from whatsappd.wire.frames import READ_SIZE, MessagePackReader
from whatsappd.wire.rpc import pack_error, pack_result

OPEN_DEADLINE_S = 0.5
JID = "15550100:3@s.whatsapp.net"


class ScriptedEngine(FakeEngine):
    """Its workers are processes that do nothing, whose requests are answered here.

    As real ones, they know no request before they are opened, and end with their channel.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery = nursery
        self.spawned = 0
        self.refusals: list[str] = []  # of OPEN, one after the other

    async def start_worker(
        self, company: str, directory: Path, on_refused_call: OnRefusedCall
    ) -> WorkerProcess:
        self.spawned += 1
        ours, theirs = socket.socketpair()
        output, output_writer = os.pipe()
        process = subprocess.Popen(["sleep", "60"], stdout=output_writer, stderr=output_writer)
        os.close(output_writer)
        child = ChildProcess(process.pid)
        process.returncode = 0  # the session reaps it
        self._nursery.start_soon(self._answer, trio.socket.from_stdlib_socket(theirs), child)
        spawned = SpawnedProcess(child, ours, output)
        return WorkerProcess(
            company, spawned, access=WhatsAppAccess(), on_refused_call=on_refused_call
        )

    async def _answer(self, channel: trio.socket.SocketType, child: ChildProcess) -> None:
        reader = MessagePackReader()
        is_open = False
        with channel:
            while data := await channel.recv(READ_SIZE):
                for _type, msgid, method, *_ in reader.feed(data):
                    refusal: WhatsappdError | None = None
                    if method == WorkerMethod.OPEN and self.refusals:
                        refusal = WorkerFailed(self.refusals.pop(0))
                    elif method == WorkerMethod.OPEN:
                        is_open = True
                    elif not is_open:
                        refusal = InvalidParams("client.open must come first", field="method")
                    answer = pack_error(msgid, refusal) if refusal else pack_result(msgid, {})
                    await channel.send(answer)
        child.kill(signal.SIGTERM)


class World(NamedTuple):
    events: EventLog
    outbox: Outbox
    inbound: InboundLog
    engine: ScriptedEngine
    session: CompanySession


async def make_world(database: Database, directory: Path, nursery: trio.Nursery) -> World:
    """Company acme, linked, whose session runs in `nursery`."""
    store = await store_in(database, directory.joinpath)
    companies = store.companies
    await companies.put_wanted("acme", True)
    await companies.put_identity("acme", jid=JID, lid=None, push_name=None)
    engine = ScriptedEngine(nursery)
    inbound = InboundLog(store.events, store.inbound, retry_s=0.01)
    session = CompanySession(
        await companies.get("acme"),
        directory=directory / "acme",
        parts=SessionParts(
            engine=engine,
            companies=companies,
            inbound=inbound,
            outbox=store.outbox,
            settings=SessionSettings(
                open_deadline_s=OPEN_DEADLINE_S, retry_store_s=0.01, retry_base_ms=1, retry_cap_ms=1
            ),
        ),
    )
    nursery.start_soon(session.run)
    return World(store.events, store.outbox, inbound, engine, session)
