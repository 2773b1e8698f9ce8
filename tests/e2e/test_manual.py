"""What the README and the guides show is pasted into a shell, as a reader would."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from daemons import PATIENCE, following, link, running_daemon
from documents import ROOT, block

#: A reader's shell ends what it started when it is closed; kill asks, and is waited for.
_END = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n"


class Reader(NamedTuple):
    """Somebody with the commands on the PATH, and a home of their own."""

    home: Path
    environment: dict[str, str]

    async def paste(self, text: str, **environment: str) -> str:
        """Run `text` in a shell; what it printed."""
        process = await trio.lowlevel.open_process(
            ["bash", "-euo", "pipefail", "-c", _END + text],
            cwd=self.home,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=(output := (self.home / "output").open("wb")),
            stderr=(errors := (self.home / "errors").open("wb")),
            start_new_session=True,
        )
        try:
            with trio.fail_after(2 * PATIENCE):
                code = await process.wait()
        finally:
            output.close()
            errors.close()
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        printed = (self.home / "output").read_text()
        assert code == 0, printed + (self.home / "errors").read_text()
        return printed


@pytest.fixture
def reader() -> Iterator[Reader]:
    # Not pytest's own directory: a socket's path is at most 107 bytes long.
    with tempfile.TemporaryDirectory(prefix="wr-") as name:
        home = Path(name)
        (home / "bin").mkdir()
        (home / "run").mkdir(mode=0o700)
        for program in ("whatsappd", "whatsappctl"):
            shim = home / "bin" / program
            shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m {program} "$@"\n')
            shim.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if "WHATSAPPD" not in name}
        yield Reader(
            home,
            {
                **kept,
                "HOME": name,
                "PATH": f"{home}/bin:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "XDG_RUNTIME_DIR": f"{home}/run",
                "XDG_STATE_HOME": f"{home}/state",
                "XDG_CONFIG_HOME": f"{home}/config",
                # Root's daemon would use the system's directories.
                "WHATSAPPD_STATE_DIR": f"{home}/state/whatsappd",
                "WHATSAPPD_SOCKET": f"{home}/run/w.sock",
            },
        )


async def test_the_readmes_quick_start(reader: Reader) -> None:
    text = block("test:quickstart").replace("kill %1\n", "kill %1\nwait %1\n")
    printed = await reader.paste(text)
    assert "delivered" in printed
    assert "acme" in printed
    assert "message.received" in printed


async def test_the_sandboxs_guide(reader: Reader) -> None:
    printed = await reader.paste(block("test:sandbox"))
    assert "sent" in printed


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_the_gateways_guide(reader: Reader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # A port of the test's own; all else is pasted as it stands.
    text = block("test:gateway").replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    text = text.replace("whatsappd gateway &", f"whatsappd gateway --bind 127.0.0.1:{port} &")
    async with running_daemon("--sandbox") as daemon:
        printed = await reader.paste(text, WHATSAPPD_SOCKET=str(daemon.socket))
    assert '"state":"sent"' in printed.replace(" ", "")
    assert "Your order is ready." in printed
    assert (reader.home / "code.png").read_bytes().startswith(b"\x89PNG")
    assert "data: " in printed  # of the event stream


async def test_the_webhooks_guide(reader: Reader) -> None:
    async with running_daemon("--sandbox") as daemon, daemon.client() as client:
        await client.call("session.start", company="acme")
        printed = await reader.paste(block("test:webhooks"), WHATSAPPD_SOCKET=str(daemon.socket))
    assert "whsec_" in printed
    assert "https://hooks.shop.example/whatsapp" in printed


async def test_the_scripts_guide(reader: Reader) -> None:
    async with (
        running_daemon("--sandbox") as daemon,
        daemon.client() as client,
        following(client) as events,
    ):
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        (reader.home / "script.py").write_text(block("test:client"))
        printed = await reader.paste(
            f"{sys.executable} script.py", WHATSAPPD_SOCKET=str(daemon.socket)
        )
    assert "queued" in printed
    assert "Hello" in printed
    assert printed.endswith("connected\n")
