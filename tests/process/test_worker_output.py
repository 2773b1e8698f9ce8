"""A worker's output never waits for the daemon, which may stand still."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

#: Logs and prints in two threads, and a little as Go does, which goes past Python.
WORKER = """
import logging, os, sys, threading
from whatsappd.engines.neonize.worker.output import print_without_waiting
print_without_waiting()
logging.getLogger().setLevel(logging.INFO)
def log():
    for number in range(20_000):
        logging.getLogger("neonize").info("line %d", number)
def write():
    for number in range(20_000):
        print("printed", number)
threads = [threading.Thread(target=each) for each in (log, write)]
for thread in threads: thread.start()
for thread in threads: thread.join()
os.write(2, b"panic: as Go says it\\n" * 100)
os.write(int(sys.argv[1]), b".")
sys.stdin.readline()
logging.getLogger("neonize").info("again")
"""


def test_a_daemon_that_stands_still_stops_no_worker():
    reading, writing = os.pipe()
    done, tell_done = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tell_done)],
        stdin=subprocess.PIPE,
        stdout=writing,
        stderr=writing,
        pass_fds=[tell_done],
    ) as worker:
        os.close(writing)
        os.close(tell_done)
        assert worker.stdin is not None
        assert os.read(done, 1) == b"."  # it came to its end, and nobody had read a line
        os.close(done)
        text = os.read(reading, fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ))
        worker.stdin.write(b"\n")
        worker.stdin.close()
        while piece := os.read(reading, 65536):
            text += piece
        os.close(reading)
        assert worker.wait() == 0
    lines = text.decode().splitlines()
    assert sum(line == "panic: as Go says it" for line in lines) == 100
    [told] = [line for line in lines if "lines were dropped" in line]
    kept = [line for line in lines if line.startswith(("INFO neonize line", "printed"))]
    assert told.startswith(f"WARNING whatsappd {40_000 - len(kept)} lines were dropped")
    assert lines[-1] == "INFO neonize again"
