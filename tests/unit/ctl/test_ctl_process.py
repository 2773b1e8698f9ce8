"""`whatsappctl` as a process of its own: signals, pipes, and what it must not load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_daemon import Daemon, event

ROOT = Path(__file__).parents[3]
SUBSCRIBED = {"subscription": 1, "after": 0, "last_seq": 0, "gap": None}


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "whatsappctl", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_ctrl_c_ends_events_cleanly(daemon: Daemon):
    daemon.answers = {"events.subscribe": SUBSCRIBED}
    daemon.events = [event(1)]

    def body():
        with start("events", "--json", "--socket", daemon.path) as process:
            assert process.stdout is not None
            assert '"seq": 1' in process.stdout.readline()  # at once, although it is a pipe
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
            return process.returncode, errors

    assert daemon.run(body) == (0, "")


def test_a_closed_pipe_ends_events_quietly(daemon: Daemon):
    daemon.answers = {"events.subscribe": SUBSCRIBED}
    daemon.events = [event(number) for number in range(1, 50_000)]

    def body():
        with start("events", "--json", "--socket", daemon.path) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            return process.wait(timeout=20), process.stderr.read()

    code, errors = daemon.run(body)
    assert code == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize("module", ["whatsappctl.commands.status", "whatsappctl.client"])
def test_the_way_to_an_answer_loads_little(module: str):
    heavy = ["trio", "structlog", "msgspec", "neonize", "json", "dataclasses", "segno", "asyncio"]
    program = f"""
import sys, click, socket, msgpack
before = set(sys.modules)
import whatsappctl.cli, {module}, whatsappctl.client
print(sorted((set(sys.modules) - before) & set({heavy})))
"""
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert printed.stdout.strip() == "[]"


def test_help_loads_no_verb():
    program = """
import sys
from whatsappctl.cli import cli
cli(["--help"], standalone_mode=False)
print([name for name in sys.modules if name.startswith("whatsappctl.commands.")], file=sys.stderr)
"""
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert printed.stderr.strip() == "[]"


def test_the_package_offers_its_client_lazily():
    program = (
        "import sys, whatsappctl; assert 'socket' not in sys.modules; "
        "from whatsappctl import Client; print(Client.__name__)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert printed.stdout.strip() == "Client"
