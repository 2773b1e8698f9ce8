"""The directory that a command is started in may be anybody's: nothing that lies there is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from whatsappd.config.load import load
from whatsappd.config.sources import Sources

BIN = Path(sys.executable).parent
#: Of the standard library and of others; all are imported by some command or its children.
MODULES = (
    *("__future__", "json", "typing", "pathlib", "dataclasses", "inspect", "ctypes", "socket"),
    *("msgpack", "msgspec", "structlog", "click", "trio", "neonize", "segno", "cryptography"),
    *("pylibmagic", "magic", "prometheus_client", "hypercorn", "httpcore"),
)
HOSTILE = "import os; os.write(2, b'HOSTILE ' + __name__.encode()); os._exit(66)"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory with modules that nobody should import."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    for name in ("neonize", "google"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HOSTILE)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["whatsappd", "--version"],
        ["whatsappctl", "--version"],
        ["whatsappctl", "doctor"],
        ["whatsappctl", "status"],
        ["whatsappd", "check", "--state-dir", "state"],
        ["whatsappd", "gateway", "--bind", "unix:/proc/no.sock", "--no-auth"],
        # It starts a daemon, which starts a sandbox, a fork server, and workers.
        ["whatsappd", "demo"],
    ],
    ids=" ".join,
)
def test_no_command_runs_what_lies_where_it_is_started(command: list[str], hostile: Path) -> None:
    name, *arguments = command
    for started in ([str(BIN / name)], [sys.executable, "-m", name]):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        ran = subprocess.run(
            [*started, *arguments],
            cwd=hostile,
            env={**environment, "WHATSAPPD_SOCKET": "no.sock", "TMPDIR": "/tmp"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert b"HOSTILE" not in ran.stdout + ran.stderr
        assert ran.returncode != 66
        if command == ["whatsappd", "demo"]:
            assert ran.returncode == 0, ran.stderr
            return  # once is enough


def test_relative_paths_mean_the_starting_directory_also_after_it_is_left(tmp_path: Path) -> None:
    program = """
import os
from pathlib import Path
from whatsappd.config.load import load
from whatsappd.config.sources import Sources
from whatsappd.working_directory import leave_starting_directory
sources = Sources(dict(os.environ), {"state_dir": ("--state-dir", "here")}, Path("a.toml"))
before = load(sources)
leave_starting_directory()
assert os.getcwd() == "/"
assert load(sources) == before
settings = before.settings
print(settings.state.directory, settings.socket.path, before.file, os.environ["PYTHONPATH"])
"""
    (tmp_path / "a.toml").write_text('socket = "b/c.sock"')
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ":lib:/usr/lib"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = tmp_path
    assert ran.stdout.split() == [
        *(f"{here}/here", f"{here}/b/c.sock", f"{here}/a.toml", f"{here}/lib:/usr/lib")
    ]


def test_a_starting_directory_that_is_gone_matters_to_relative_paths_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    arguments = {
        "state_dir": ("--state-dir", "/nowhere/state"),
        "socket": ("--socket", "/nowhere/s"),
    }
    assert load(Sources({}, arguments)).settings.state.directory == Path("/nowhere/state")


def test_the_gateway_works_in_a_directory_of_its_own_and_leaves_no_core(tmp_path: Path) -> None:
    gateway = subprocess.Popen(
        [str(BIN / "whatsappd"), "gateway", "--bind", "127.0.0.1:0", "--no-auth"],
        cwd=tmp_path,
        env={**os.environ, "WHATSAPPD_SOCKET": "no.sock"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with gateway:
        assert gateway.stderr
        try:
            ready = next(line for line in gateway.stderr if "gateway_ready" in line)
            assert f'"daemon": "{tmp_path}/no.sock"' in ready
            process = Path(f"/proc/{gateway.pid}")
            assert (process / "cwd").readlink() == Path("/")
            limits = (process / "limits").read_text()
            assert re.search(r"^Max core file size\s+0\s+0\b", limits, re.MULTILINE)
        finally:
            gateway.terminate()
