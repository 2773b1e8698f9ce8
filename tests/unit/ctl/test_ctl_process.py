"""`whatsappctl` as a process of its own: signals, pipes, and what it must not load."""

from __future__ import annotations

import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from scripted_daemon import Daemon, event, session

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

    assert daemon.run(body) == (0, "")


def test_events_that_wait_end_with_their_reader(daemon: Daemon):
    daemon.answers = {"events.subscribe": SUBSCRIBED}
    daemon.events = [event(1)]

    def body():
        with start("events", "--json", "--socket", daemon.path) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()  # and then nothing comes any more
            process.stdout.close()
            return process.wait(timeout=20), process.stderr.read()

    assert daemon.run(body) == (0, "")


def test_start_on_a_terminal_draws_each_code_over_the_one_before(daemon: Daemon):
    daemon.answers = {"session.start": session(state="starting", jid=None) | {"subscription": 1}}
    daemon.events = [
        event(1, "session.qr", qr="https://wa.me/1", expires_ms=5),
        event(2, "session.qr", qr="https://wa.me/2", expires_ms=6),
        event(3, state="connected", cause="connected", jid="15550100@s.whatsapp.net"),
    ]

    def body():
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "whatsappctl", "start", "acme", "--socket", daemon.path]
        shown = b""
        with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs) as process:
            os.close(theirs)
            while True:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
        os.close(ours)
        return process.returncode, shown.decode()

    code, shown = daemon.run(body)
    assert code == 0
    first, second, rest = shown.split("Scan it with the phone")
    height = first.count("▀") and len([line for line in first.splitlines() if "\x1b[0m" in line])
    assert f"\x1b[{height + 1}F\x1b[J" in second  # up to the first code, and away with it
    assert "acme: connected as +15550100" in rest.replace("\r", "")


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


def batch_daemon(daemon: Daemon) -> None:
    rows = itertools.count(1)

    def accept(params: Any) -> dict[str, Any]:
        return {
            "id": f"{next(rows):016x}", "company": "acme", "state": "queued", "key": params.key,
            "created_ms": 1 << 60,
        }  # fmt: skip

    daemon.answers = {"session.list": {"sessions": [session()]}, "message.send": accept}


def batch_file(directory: Path, count: int) -> str:
    file = directory / "batch"
    file.write_text(
        "".join(f'{{"to": "+1555{number:07}", "text": "x"}}\n' for number in range(count))
    )
    return str(file)


def test_a_batch_on_a_terminal_shows_how_far_it_is(daemon: Daemon, tmp_path: Path):
    batch_daemon(daemon)
    arguments = ("send", "acme", "--batch", batch_file(tmp_path, 500), "--socket", daemon.path)

    def body():
        ours, theirs = pty.openpty()
        shown = b""
        with subprocess.Popen(
            [sys.executable, "-m", "whatsappctl", *arguments],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
        ) as process:  # fmt: skip
            os.close(theirs)
            while True:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
            assert process.stdout is not None
            printed = process.stdout.read()
        os.close(ours)
        return process.returncode, printed, shown.decode()

    code, printed, shown = daemon.run(body)
    assert (code, printed) == (0, b"500 lines: 500 accepted\n")
    assert "sending" in shown
    assert "500/500" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_batch_that_is_interrupted_waits_for_its_answers_and_gives_an_account(
    daemon: Daemon, tmp_path: Path, number: signal.Signals
):
    batch_daemon(daemon)
    accept = daemon.answers["message.send"]
    begun, signalled = threading.Event(), threading.Event()

    def hold(params: Any) -> Any:
        begun.set()
        assert signalled.wait(20)
        return accept(params)

    daemon.answers["message.send"] = hold
    arguments = ("send", "acme", "--batch", batch_file(tmp_path, 3000), "--socket", daemon.path)

    def body():
        with start(*arguments, "--json") as process:
            # Not by reading its first line: `communicate` would miss what was read ahead with it.
            assert begun.wait(20)
            process.send_signal(number)
            signalled.set()
            out, err = process.communicate(timeout=20)
            return process.returncode, out.count("\n"), json.loads(err)

    code, printed, told = daemon.run(body)
    assert code == 130
    assert printed == told["summary"]["accepted"] == len(daemon.called("message.send"))
    assert told["summary"]["in_doubt"] == 0
    assert told["summary"]["left"] == 3000 - printed > 0


def test_a_second_signal_does_not_wait_and_counts_what_is_in_doubt(daemon: Daemon, tmp_path: Path):
    batch_daemon(daemon)
    accept = daemon.answers["message.send"]
    hangs, release = threading.Event(), threading.Event()

    def hang(params: Any) -> Any:
        if len(daemon.called("message.send")) > 50:
            hangs.set()
            release.wait(30)
        return accept(params)

    daemon.answers["message.send"] = hang
    arguments = ("send", "acme", "--batch", batch_file(tmp_path, 3000), "--socket", daemon.path)

    def body():
        try:
            with start(*arguments) as process:
                assert hangs.wait(20)
                # Two of one kind could merge while the first is pending.
                process.send_signal(signal.SIGINT)
                process.send_signal(signal.SIGTERM)
                _, err = process.communicate(timeout=15)  # no answer comes for longer
                return process.returncode, err
        finally:
            release.set()

    code, err = daemon.run(body)
    assert code == 130
    assert "whatsappctl: interrupted: 3000 lines: " in err
    assert "sent without an answer); run the same again" in err
