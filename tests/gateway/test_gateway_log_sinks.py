"""No log sink ends, stalls or slows the gateway."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio
from full_pipe import full_pipe

#: Generous: the machine may be busy with other tests.
PATIENCE = 90.0


@pytest.fixture
def stuck() -> Iterator[int]:
    with full_pipe() as writing:
        yield writing


@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", "2>&{stuck}"])
async def test_a_stranger_gets_his_401_whatever_the_log_goes_to(redirection: str, stuck: int):
    with tempfile.TemporaryDirectory(prefix="wg-") as name:
        address = Path(name) / "g.sock"
        command = [sys.executable, "-m", "whatsappd", "gateway", "--bind", f"unix:{address}"]
        line = f'exec "$@" {redirection.format(stuck=stuck)}'
        process = await trio.lowlevel.open_process(
            # sh knows no 2>&10
            ["bash", "-c", line, "bash", *command, "--socket", str(Path(name) / "nobody")],
            stdin=subprocess.DEVNULL,
            pass_fds=[stuck],
        )
        try:
            with trio.fail_after(PATIENCE):
                transport = httpx.AsyncHTTPTransport(uds=str(address))
                async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
                    await until_it_answers(http, process)
                    for _ in range(50):  # each is logged
                        assert (await http.get("/v1/sessions")).status_code == 401
                process.terminate()
                assert await process.wait() == 0
        finally:
            process.kill()
            await process.wait()


async def until_it_answers(http: httpx.AsyncClient, process: trio.Process) -> None:
    while True:
        assert process.poll() is None
        try:
            await http.get("/livez")
            return
        except httpx.ConnectError:
            await trio.sleep(0.02)
