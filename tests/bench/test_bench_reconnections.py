"""What neonize itself leaks: one worker's descriptors, threads and memory over 50 reconnections.

Should a version leak, the daemon lives with it by recycling workers
(`rules.worker_recycling`); here it is told not to. (0.5.2 keeps its descriptors and threads, and
some 30 kB a reconnection.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from daemons import Daemon, in_sandbox, link
from processes import usage

pytestmark = pytest.mark.bench

RECONNECTIONS = 50
PHONE = "+15550100"
#: Ways to lose a connection, each one or more faults of the sandbox.
WAYS: dict[str, list[dict[str, Any]]] = {
    "a connection that ends": [{"kind": "drop", "phone": PHONE}],
    "one that dies in silence": [{"kind": "freeze", "phone": PHONE, "seconds": 0.1, "cut": True}],
    "a restart of the server": [{"kind": "stream_error", "phone": PHONE, "code": 503}],
    "a dial that is refused once": [
        {"kind": "refuse_dials", "count": 1},
        {"kind": "drop", "phone": PHONE},
    ],
}


def never_recycle(daemon: Daemon) -> None:
    config = daemon.directory / "whatsappd.toml"
    config.write_text(
        "[sessions]\nrecycle_memory = 0\nrecycle_descriptors = 0\nrecycle_threads = 0\n"
    )
    daemon.arguments = (*daemon.arguments, "--config", str(config))


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_reconnection_leaves_behind(measured: Callable[..., None], way: str) -> None:
    async with in_sandbox(prepare=never_recycle) as (_, client, events):
        await link(client, events, "acme", PHONE)
        pid = (await client.call("session.status", company="acme"))["worker_pid"]

        async def reconnect(times: int) -> None:
            for _ in range(times):
                start = len(events.seen)
                for fault in WAYS[way]:
                    await client.call("sandbox.fault", **fault)
                await events.state("acme", "connected", start=start)

        await reconnect(5)  # fills what fills once
        before = usage(pid)
        await reconnect(RECONNECTIONS)
        after = usage(pid)
        assert (await client.call("session.status", company="acme"))["worker_pid"] == pid
    beside = f"before {RECONNECTIONS} reconnections"
    for what, unit, now, then in (
        ("descriptors", "", after.descriptors, before.descriptors),
        ("threads", "", after.threads, before.threads),
        ("private memory", "MB", after.private_mb, before.private_mb),
    ):
        measured(f"a worker's {what} afterwards: {way}", now, unit, beside=beside, reference=then)
