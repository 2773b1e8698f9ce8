"""A MessagePack-RPC client of another project can use the socket."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio

pytest.importorskip("pynvim", reason="pynvim is in the extra `dev`")
SCRIPT = str(Path(__file__).with_name("foreign_client.py"))


async def test_a_foreign_client_calls_fails_and_subscribes(served):
    with trio.fail_after(20):
        run = await trio.run_process([sys.executable, SCRIPT, served.path], capture_stdout=True)
    seen = json.loads(run.stdout)
    assert set(seen["hello"]) == {"pid", "uid", "gid"}
    assert seen["echo"] == {"nested": [1, "añ", None]}
    assert seen["error"]["name"] == "invalid_params"
    assert seen["error"]["message"].startswith("to: is missing")
    assert seen["subscribed"] == "subscribed"
    assert seen["events"] == [{"number": 0}, {"number": 1}, {"number": 2}]
    await served.until(lambda: served.server.counts.open == 0)
