"""The gateway's unit: it exposes little, and the gateway runs under what it forbids."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import trio
from daemons import PATIENCE
from gateways import Gateway, Stack
from systemd_analyze import analyze

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "whatsappd-gateway.service"
CONFINED = ROOT / "tests" / "e2e" / "confined.py"
UNAVAILABLE = 77


def test_the_unit_exposes_little() -> None:
    printed = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    [exposure] = re.findall(r"level for whatsappd-gateway.service: ([0-9.]+)", printed)
    assert float(exposure) <= 1.5


def test_the_unit_keeps_it_out_of_the_state() -> None:
    text = UNIT.read_text()
    assert "User=whatsappd-gateway" in text
    assert re.search(r"^InaccessiblePaths=.*/var/lib/whatsappd", text, re.M)
    assert not re.search(r"^(StateDirectory|ReadWritePaths)=", text, re.M)


async def test_the_gateway_runs_under_what_the_unit_forbids(stack: Stack, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can drop capabilities")
    gateway = Gateway(tmp_path, stack.daemon.socket)
    gateway.command = [sys.executable, str(CONFINED), str(UNIT), *gateway.command]
    try:
        await gateway.start()
    except AssertionError:
        assert gateway.process is not None
        if gateway.process.poll() == UNAVAILABLE:
            pytest.skip(gateway.log().strip().splitlines()[-1])
        raise
    try:
        confined = Stack(stack.daemon, gateway)
        async with confined.http(await confined.key()) as http:
            assert (await http.put("/v1/sessions/confined")).is_success
            with trio.fail_after(PATIENCE):
                while (await http.get("/v1/sessions/confined/qr?format=png")).status_code != 200:
                    await trio.sleep(0.05)
            assert (await http.get("/docs")).status_code == 200
    finally:
        await gateway.stop()
    assert "request_failed" not in gateway.log()
