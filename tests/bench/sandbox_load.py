"""Load for the sandbox from a process of its own: pairs of devices, one writing to the other.

Usage: python sandbox_load.py, with a JSON object on stdin: port, directory, messages (per pair),
window (messages in flight per pair), pairs of devices with their keys. Prints the seconds it took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

from wire_client import WireClient  # noqa: E402

from whatsappd.model.jid import parse_jid  # noqa: E402
from whatsappd.sandbox.protocol.node import Node  # noqa: E402


async def log_in(job: dict[str, Any], device: dict[str, str]) -> WireClient:
    client = WireClient(job["port"], Path(job["directory"]))
    client.static = X25519PrivateKey.from_private_bytes(bytes.fromhex(device["static"]))
    client.jid, client.lid = parse_jid(device["jid"]), parse_jid(device["lid"])
    return await client.log_in()


async def write(client: WireClient, to: WireClient, count: int, window: int) -> None:
    """Send messages, `window` at a time, until each is acknowledged and has its receipt."""
    assert to.lid is not None
    sent = acknowledged = received = 0
    while received < count or acknowledged < count:
        while sent < count and sent - min(acknowledged, received) < window:
            await client.send(client.message(to.lid.account, f"M{sent}", to.lid))
            sent += 1
        node = await client.receive()
        if node.tag == "receipt":
            received += 1
            ack = {"class": "receipt", "id": node.text("id"), "to": node.attrs["from"]}
            await client.send(Node("ack", ack))
        elif node.tag == "ack":
            acknowledged += 1


async def read(client: WireClient, count: int) -> None:
    """Receive messages, and send their receipts."""
    for _ in range(count):
        await client.acknowledge(await client.expect("message"))


async def main() -> None:
    job = json.loads(sys.stdin.readline())
    pairs = [[await log_in(job, device) for device in pair] for pair in job["pairs"]]
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for writer, reader in pairs:
            nursery.start_soon(read, reader, job["messages"])
            nursery.start_soon(write, writer, reader, job["messages"], job["window"])
    print(time.monotonic() - began, flush=True)
    for client in (client for pair in pairs for client in pair):
        await client.close()


if __name__ == "__main__":
    trio.run(main)
