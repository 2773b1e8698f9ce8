"""The server that test_bench_events measures, in a process of its own: `DIRECTORY SOCKET`.

The daemon's event log, its `events.*` methods and its RPC server, without sessions; `bench.append`
logs events as busy sessions would.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from pathlib import Path
from typing import Any

import structlog
import trio

from whatsappd.api.declaration import Concerns, Declaration, Params, Result
from whatsappd.clock import now_ms
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.events import EventsApi
from whatsappd.model.event import MESSAGE_RECEIVED, Draft
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.server import serve_rpc
from whatsappd.store.sqlite.consumers import SqliteConsumers
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log

PERSON = {
    "jid": "15550200000@s.whatsapp.net",
    "lid": "190269564296955@lid",
    "phone": "+15550200000",
    "name": None,
}
DATA = {
    "message_id": "3EB00395BFF11CD026AFE6",
    "timestamp_ms": 1_795_454_908_087,
    "chat": {**PERSON, "type": "person"},
    "sender": PERSON,
    "content": {"kind": "text", "text": "x" * 100},
    "text": "x" * 100,
}
#: The text of the event behind all others.
END = "the very last event"


class AppendParams(Params):
    count: int
    batch: int  # events of one write
    writers: int  # that write at the same time


async def serve(directory: Path, path: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
    async with open_database(directory / "whatsappd.db") as database:
        log = await open_event_log(database)

        async def append(_call: Call, params: AppendParams) -> dict[str, Any]:
            left = params.count

            async def write() -> None:
                nonlocal left
                while left > 0:
                    left -= params.batch
                    await log.append(*[Draft("acme", MESSAGE_RECEIVED, DATA)] * params.batch)

            async with trio.open_nursery() as nursery:
                for _ in range(params.writers):
                    nursery.start_soon(write)
            await log.append(Draft("acme", MESSAGE_RECEIVED, {**DATA, "text": END}))
            return {"last_seq": log.last_seq}

        table = MethodTable(
            [
                *EventsApi(
                    log, SqliteConsumers(database, log, now_ms), AccessControl(os.geteuid())
                ).methods(),
                Method(
                    Declaration(
                        "bench.append", AppendParams, Result, "", writes=True, concerns=Concerns.ALL
                    ),
                    append,
                ),
            ]
        )
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen(1024)
        listening.setblocking(False)
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 50, 50)
        print("ready", flush=True)
        await serve_rpc(listening, table)


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]), sys.argv[2])
