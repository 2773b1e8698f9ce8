"""SIGKILL in the middle of a busy outbox: what was answered is there, and the log agrees."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import arrivals
import pytest

from whatsappd.model.event import OUTBOX_STATE
from whatsappd.model.message import OutboxState as S
from whatsappd.sessions.handover import give_up_orphans
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.integrity import check
from whatsappd.store.sqlite.outbox import open_outbox

# Prints each answer as one line of JSON the moment it has it.
_BUSY = """
import json, os, random, sys, trio
sys.path.append(sys.argv[3])
from pathlib import Path
from arrivals import intake_of, receive
from whatsappd.model.message import NewMessage
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.outbox import open_outbox

def tell(row):
    os.write(1, (json.dumps([row.id, str(row.state)]) + "\\n").encode())

async def main():
    async with open_database(Path(sys.argv[1])) as database:
        log = await open_event_log(database)
        outbox = await open_outbox(database, log)
        intake = intake_of(database, log, outbox)

        async def send(sender):
            for index in range(10**9):
                key = f"{sys.argv[2]}-{sender}-{index}"
                new = NewMessage("acme", f"chat{sender}", Text("hi"), key)
                row, _ = await outbox.submissions.accept(new, 10**6)
                tell(row)

        async def dispatch():
            while True:
                version = outbox.handovers.version("acme")
                for row in await outbox.handovers.pending("acme", 5):
                    tell((await outbox.handovers.begin(row.id)).row)
                    await receive(intake, "acme", ["M" + row.id], "delivered")
                    tell(await outbox.handovers.acknowledge(row.id, "M" + row.id, 1))
                await outbox.handovers.wait_changed("acme", version)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatch)
            for sender in range(8):
                nursery.start_soon(send, sender)

trio.run(main)
"""

_ORDER = [S.QUEUED, S.SENDING, S.SENT, S.DELIVERED]


def run_and_kill(path: Path, name: str, answers: int) -> dict[str, S]:
    """The furthest state that was answered, by row."""
    told: dict[str, S] = {}
    with subprocess.Popen(
        [sys.executable, "-c", _BUSY, str(path), name, str(Path(arrivals.__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(answers)]
        process.kill()
        lines += process.stdout.readlines()
    for line in lines:
        if line.endswith("\n"):
            row_id, state = json.loads(line)
            told[row_id] = S(state)
    return told


async def run_killed_rounds(path: Path, rounds: int) -> Counter[str]:
    figures: Counter[str] = Counter()
    chance = random.Random(3)
    uncertain: set[str] = set()
    for index in range(rounds):
        told = run_and_kill(path, str(index), chance.randrange(50, 1500))
        assert check(path) == []
        async with open_database(path) as database:
            log = await open_event_log(database)
            outbox = await open_outbox(database, log)
            for row_id, state in told.items():
                row = await outbox.view.get(row_id)
                assert _ORDER.index(row.state) >= _ORDER.index(state)
            # What is `sending` now was being handed over; nothing else became uncertain.
            interrupted = {
                handover.row.id for handover in await outbox.handovers.interrupted()
            } - uncertain
            recovered = {row.id for row in await give_up_orphans(outbox.handovers, ())}
            assert recovered == interrupted
            uncertain |= recovered
            figures["answered"] += len(told)
            figures["interrupted"] += len(recovered)
    async with open_database(path) as database:
        log = await open_event_log(database)
        outbox = await open_outbox(database, log)
        last_told: dict[str, str] = {}
        seqs = []
        cursor = 0
        while cursor < log.last_seq:
            batch = await log.read(cursor, 1000, types={OUTBOX_STATE})
            for stored in batch.events:
                seqs.append(stored.seq)
                last_told[stored.event.data["id"]] = stored.event.data["state"]
            cursor = batch.last
        assert seqs == list(range(1, log.last_seq + 1))
        rows = await outbox.view.list_rows(limit=10**6)
        assert {row.id: str(row.state) for row in rows} == last_told
        assert Counter(row.state for row in rows) == outbox.view.counts("acme")
        assert {row.id for row in rows if row.state is S.UNCERTAIN} == uncertain
        assert len({row.key for row in rows}) == len(rows)
        figures["rows"] = len(rows)
    return figures


async def test_kills_lose_nothing_that_was_answered(tmp_path: Path) -> None:
    await run_killed_rounds(tmp_path / "whatsappd.db", 3)


@pytest.mark.soak
async def test_many_kills_lose_nothing_that_was_answered(tmp_path: Path) -> None:
    print(dict(await run_killed_rounds(tmp_path / "whatsappd.db", 60)))
