"""The sandbox's accounts and undelivered stanzas survive its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.state.database import SandboxDatabase
from whatsappd.sandbox.state.registry import AccountRegistry

_KILLED = """
import os, signal, sys
from pathlib import Path
from whatsappd.sandbox.state.database import SandboxDatabase

store = SandboxDatabase(Path(sys.argv[1]))
kept = store.enqueue(1, b"kept")
gone = store.enqueue(1, b"gone")
store.commit()
store.dequeue(gone)
store.enqueue(1, b"also kept")
store.commit()
store.enqueue(1, b"never committed")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_number_leads_to_an_account_under_another(tmp_path: Path) -> None:
    store = SandboxDatabase(tmp_path / "sandbox.db")
    registry = AccountRegistry(store)
    account = registry.register("557199990000")
    registry.add_alias("5571999990000", account)
    registry.register("15550100")
    with pytest.raises(SandboxFailed, match="an account of its own"):
        registry.add_alias("15550100", account)
    store.close()
    store = SandboxDatabase(tmp_path / "sandbox.db")
    registry = AccountRegistry(store)
    found = registry.by_number("5571999990000")
    assert found is not None
    assert found.phone == "557199990000"
    assert registry.by_phone("5571999990000") is None
    assert registry.by_number("15550199") is None
    store.close()


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(file)], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    store = SandboxDatabase(file)
    assert store.read("SELECT stanza FROM queue ORDER BY seq") == [(b"kept",), (b"also kept",)]
    store.close()
