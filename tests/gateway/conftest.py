"""Real gateways against real daemons: processes, as anybody would start them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from daemons import PATIENCE, Daemon, running_daemon
from gateways import Gateway, Stack, running_gateway


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A daemon in sandbox mode and its gateway, shared by the tests that leave both running.

    Each test uses companies of its own, and events behind those that were there before.
    """
    with tempfile.TemporaryDirectory(prefix="wd-") as name:
        daemon = Daemon(Path(name), "--sandbox")
        gateway = Gateway(daemon.directory, daemon.socket)
        with (
            daemon.log_file.open("ab") as daemon_log,
            gateway.log_file.open("ab") as gateway_log,
            subprocess.Popen(
                [sys.executable, "-m", "whatsappd", "run", "--state-dir", str(daemon.state_dir),
                 "--socket", str(daemon.socket), "--sandbox"],
                stdin=subprocess.DEVNULL, stdout=daemon_log, stderr=daemon_log,
            ) as daemon_process,
            subprocess.Popen(
                gateway.command, stdin=subprocess.DEVNULL, stdout=gateway_log, stderr=gateway_log
            ) as gateway_process,
        ):  # fmt: skip
            try:
                deadline = time.monotonic() + PATIENCE
                while not (gateway.find_ready() and "daemon_reached" in gateway.log()):
                    assert daemon_process.poll() is None, daemon.log()
                    assert gateway_process.poll() is None, gateway.log()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                yield Stack(daemon, gateway)
            finally:
                gateway_process.terminate()
                daemon_process.terminate()


@pytest.fixture
async def own_stack() -> AsyncIterator[Stack]:
    """A daemon and a gateway of the test's own, to be mistreated."""
    async with running_daemon("--sandbox") as daemon, running_gateway(daemon) as gateway:
        yield Stack(daemon, gateway)
