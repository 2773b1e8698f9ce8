"""Every command ends with its own exit code and one line, whatever its streams are."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from daemons import PATIENCE, Daemon, in_sandbox
from forked_commands import STATES

from whatsappctl.cli import cli
from whatsappd.rpc.client import open_client

#: What each command is run with. It may be any answer, an error's too; it must come soon.
ARGUMENTS: dict[str, list[str]] = {
    "start": ["acme", "--no-wait"],
    "stop": ["globex"],
    "restart": ["globex"],
    "status": [],
    "list": [],
    "wait": ["acme", "--for", "pairing"],
    "qr": ["acme", "--text"],
    "logout": ["nobody"],
    "help": [],
    "remove": ["nobody", "--yes"],
    "send": ["acme", "+15550100", "Hello", "--key", "k"],
    "outbox list": ["--json"],
    "outbox show": ["0123456789abcdef"],
    "outbox cancel": ["0123456789abcdef", "1123456789abcdef"],
    "outbox resolve": ["0123456789abcdef", "--as", "sent"],
    "limits": ["acme"],
    "events": ["--json", "--after", "0", "--no-follow"],
    "events forget": ["nobody"],
    "health": [],
    "metrics": [],
    "doctor": [],
    "backup": ["{directory}/missing/backup.db"],
    "configure": [],
    "keys create": ["shop"],
    "keys list": [],
    "keys revoke": ["abcdefgh"],
    "webhooks create": ["https://hooks.example/x"],
    "webhooks list": [],
    "webhooks show": ["abcdefgh"],
    "webhooks update": ["abcdefgh", "--disable"],
    "webhooks remove": ["abcdefgh"],
    "webhooks test": ["abcdefgh"],
    "webhooks dead": ["abcdefgh"],
    "webhooks resend": ["abcdefgh"],
    "webhooks discard": ["abcdefgh"],
    "call": ["daemon.hello"],
    "sandbox info": [],
    "sandbox scan": ["--qr", "nonsense", "--phone", "+15550100"],
    "sandbox register": ["+15550199"],
    "sandbox unlink": ["+15550198"],
    "sandbox fault": ["nonsense"],
    "sandbox stats": [],
    "completion": ["bash"],
}
#: Others that print line by line.
MORE = [
    ("send", ["--batch", "{directory}/../batch.ndjson", "--json"]),
    ("events", ["--after", "0", "--count", "2"]),
    ("outbox", ["list", "--all"]),
]
ALL_OPEN = ("open", "open", "open")
#: What every command meets, and of the rest each command one.
STDOUT = [("open", state, "open") for state in STATES[1:]]
OTHERS = [
    ("open", "open", "closed"),
    ("open", "open", "full"),
    ("open", "open", "gone"),
    ("closed", "closed", "closed"),
    ("gone", "gone", "gone"),
    ("closed", "full", "full"),
]


def commands(group: click.Group, before: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield before + name
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")


def test_every_command_is_tried():
    assert set(commands(cli)) == set(ARGUMENTS)


async def run_all(daemon: Daemon, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    directory = daemon.state_dir.parent
    asked, told = directory / "tasks.json", directory / "results.json"
    asked.write_text(json.dumps(tasks))
    await trio.run_process(
        [sys.executable, str(Path(__file__).with_name("forked_commands.py")), str(asked), str(told)]
    )
    results: list[dict[str, Any]] = json.loads(told.read_text())
    return results


def expected(own: dict[str, Any], streams: tuple[str, ...]) -> tuple[int, int]:
    """The exit code, and the lines on stderr beside the command's own."""
    lost = own["stdout"] and streams[1] in ("closed", "full")
    return (own["code"] or 1, 1) if lost else (own["code"], 0)


async def test_each_command_with_each_stream_closed_full_or_without_a_reader():
    async with in_sandbox() as (daemon, client, _):
        for company in ("acme", "globex"):
            await client.call("session.start", company=company)
        await client.call("session.stop", company="globex")
        line = {"company": "acme", "to": "+15550100", "text": "Hello"}
        (daemon.directory / "batch.ndjson").write_text(f"{json.dumps(line)}\n" * 3)
        tasks = [
            {
                "arguments": [
                    *("--socket", str(daemon.socket), *name.split()),
                    *(each.format(directory=daemon.state_dir) for each in arguments),
                ],
                "streams": streams,
            }
            for number, (name, arguments) in enumerate([*ARGUMENTS.items(), *MORE])
            for streams in (ALL_OPEN, *STDOUT, OTHERS[number % len(OTHERS)])
        ]
        results = await run_all(daemon, tasks)
    own: dict[str, Any] = {}
    for task, result in zip(tasks, results, strict=True):
        streams = task["streams"]
        if streams == ALL_OPEN:
            own = result
        told = result["stdout"] + result["stderr"]
        assert "Traceback" not in told, (task, result)
        assert "Exception ignored" not in told, (task, result)
        code, lines = expected(own, streams)
        assert result["code"] == code, (task, result, own)
        if streams[2] == "open":
            told = result["stderr"].count("\n")
            assert told == own["stderr"].count("\n") + lines, (task, result, own)


EVERY = list(itertools.product(("open", "closed"), repeat=3))


@pytest.mark.parametrize(
    ("command", "tried"), [("whatsappctl", EVERY), ("whatsappd", [EVERY[0], EVERY[-1]])]
)
def test_streams_that_were_closed_from_the_start(command: str, tried: list[tuple[str, ...]]):
    """As a shell would start it: descriptors 0, 1 and 2 are free when Python begins."""
    for streams in tried:
        signs = [
            f"{sign}/dev/null" if state == "open" else f"{sign}&-"
            for sign, state in zip(("<", ">", "2>"), streams, strict=True)
        ]
        line = f"exec {sys.executable} -m {command} --version {' '.join(signs)}"
        ended = subprocess.run(["sh", "-c", line], check=False, timeout=30)
        assert ended.returncode == (0 if streams[1] == "open" else 1), line


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        (">/dev/null", 0, ""),
        (">/dev/full", 1, "whatsappd: stdout cannot be written: No space left on device\n"),
        (">&-", 1, "whatsappd: stdout cannot be written: Bad file descriptor\n"),
        ("| true", 0, ""),
    ],
)
def test_whatsappd_tells_that_it_could_not_print(redirection: str, code: int, told: str):
    line = f"set -o pipefail; {sys.executable} -m whatsappd check --sample {redirection}"
    ended = subprocess.run(
        ["bash", "-c", line], check=False, timeout=30, stderr=subprocess.PIPE, text=True
    )
    assert (ended.returncode, ended.stderr) == (code, told)


async def test_a_sandbox_that_cannot_print_serves_all_the_same(tmp_path: Path):
    info = tmp_path / "info.json"
    command = [sys.executable, "-m", "whatsappd", "sandbox", "--info", str(info)]
    process = await trio.lowlevel.open_process(["sh", "-c", 'exec "$@" >/dev/full', "sh", *command])
    try:
        with trio.fail_after(PATIENCE):
            while not info.exists():
                assert process.poll() is None
                await trio.sleep(0.02)
            async with open_client(json.loads(info.read_text())["control"]) as control:
                assert await control.call("sandbox.stats")
            process.send_signal(signal.SIGHUP)  # the terminal is closed
            await process.wait()
    finally:
        process.kill()
        await process.wait()
    assert not info.exists()
