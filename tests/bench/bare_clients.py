"""The reference for sending: a bare loop around neonize, without a daemon and without promises.

Usage: python bare_clients.py, with a JSON object on stdin: proxy, noise_root (hex), options (behind
the databases' paths; null: OPTIONS), clients: each with its database, the phones that it writes to
in turn, and how many messages it sends, one after the other, and receives. Processes are forked as
the daemon's workers are, one for each client, from a parent that has imported everything but the Go
library; the accounts' databases are a stopped daemon's. Prints the processes' ids when all are
connected, begins at a line on stdin, prints what each client saw, times in epoch seconds, and ends
at a second line; what it prints is JSON behind a mark.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from whatsappd.engines.neonize.fork.preload import (  # noqa: E402
    DeferredLibrary,
    import_deferred,
    library_path,
    start_log_thread,
)
from whatsappd.sandbox.neonize_library.noise_root import replace_noise_root  # noqa: E402

#: WAL, as anybody would want it who looked.
OPTIONS = "?_journal_mode=WAL&_busy_timeout=5000&_foreign_keys=on&x="
#: Seconds that all messages may take to arrive, once they are sent.
PATIENCE = 30


class Client:
    """One neonize client, in a process of its own."""

    def __init__(
        self, job: dict[str, Any], client: dict[str, Any], library: DeferredLibrary
    ) -> None:
        library.load()
        start_log_thread()
        replace_noise_root(library_path(), bytes.fromhex(job["noise_root"]))
        self._neonize = importlib.import_module("neonize.client")
        events = importlib.import_module("neonize.events")
        self._jid = importlib.import_module("neonize.utils.jid").build_jid
        self._messages: int = client["messages"]
        self._phones: list[str] = client["phones"]
        self._connected = threading.Event()
        self._complete = threading.Event()
        self._received = 0
        self._last = 0.0
        options = job["options"] or OPTIONS
        self._client = self._neonize.NewClient(client["database"] + options, uuid=client["name"])
        self._client.event(events.ConnectedEv)(self._on_connected)
        self._client.event(events.MessageEv)(self._on_message)
        self._proxy = self._neonize.ProxySettings(job["proxy"])

    def _on_connected(self, client: Any, _event: Any) -> None:
        client.set_force_activate_delivery_receipts(True)
        self._connected.set()

    def _on_message(self, _client: Any, _event: Any) -> None:
        self._received += 1
        self._last = time.time()
        if self._received == self._messages:
            self._complete.set()

    def connect(self) -> None:
        threading.Thread(target=self._client.connect, args=(self._proxy,), daemon=True).start()
        assert self._connected.wait(PATIENCE)

    def send(self) -> dict[str, Any]:
        began = time.time()
        targets = [self._jid(phone) for phone in self._phones]
        for number in range(self._messages):
            self._client.send_message(targets[number % len(targets)], f"bare {number:06}")
        sent = time.time()
        self._complete.wait(PATIENCE)
        return {
            "began": began,
            "sent": sent,
            "received": self._received,
            "arrived": self._last,
        }


def child(
    job: dict[str, Any], client: dict[str, Any], library: DeferredLibrary, go: int, report: int
) -> None:
    one = Client(job, client, library)
    one.connect()
    os.write(report, b"ready\n")
    os.read(go, 1)
    os.write(report, json.dumps(one.send()).encode() + b"\n")
    os.read(go, 1)  # others may still be sending to this one


def fork(
    job: dict[str, Any], client: dict[str, Any], library: DeferredLibrary, go: int
) -> tuple[int, TextIO]:
    """A new client's process, and the end of the pipe that it reports to."""
    report, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, os.fdopen(report)
    try:
        child(job, client, library, go, writer)
    finally:
        os._exit(0)  # without waiting for Go's threads, which may never end


def say(report: Any) -> None:
    print(f"\n@report {json.dumps(report)}", flush=True)


def main() -> None:
    job = json.loads(sys.stdin.readline())
    library = import_deferred()
    gc.collect()
    gc.freeze()
    go, start = os.pipe()
    clients = [fork(job, client, library, go) for client in job["clients"]]
    for _, report in clients:
        assert report.readline() == "ready\n"
    say([pid for pid, _ in clients])
    sys.stdin.readline()
    os.write(start, bytes(len(clients)))
    say([json.loads(report.readline()) for _, report in clients])
    sys.stdin.readline()
    os.write(start, bytes(len(clients)))
    for _ in clients:
        os.wait()


if __name__ == "__main__":
    main()
