"""`systemd-analyze` on a unit file, for the tests of the units."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def analyze(*arguments: str) -> str:
    """What it prints; the test is skipped where it is missing, and fails where it complains."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing (Debian: apt-get install systemd)")
    run = subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": "/tmp"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr
