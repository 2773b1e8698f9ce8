"""A script run as root under a real systemd: in a container that is a throw-away copy of this host.

systemd-nspawn boots the host's own tree with an overlay in memory over it, so that whatever the
script installs or breaks is gone afterwards. The container has the loopback network alone. This
project is in /opt/source, and /opt/whatsappd/bin has its commands, as after the guide's steps.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Seconds for all of it: it takes some fifteen on a quiet machine.
WITHIN = 120
_TRIAL = """\
[Unit]
DefaultDependencies=no
Requires=sysinit.target
After=sysinit.target systemd-tmpfiles-setup.service
[Service]
Type=oneshot
TimeoutStartSec={within}
Environment=PATH=/opt/whatsappd/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=append:/trial.log
StandardError=append:/trial.log
ExecStart=/bin/bash -eu /trial.sh
ExecStopPost=/bin/sh -c 'echo "trial ended: $SERVICE_RESULT"; \\
    test $SERVICE_RESULT = success || journalctl --boot --no-pager --output=cat | tail -n 80'
ExecStopPost=/bin/systemctl --force --force poweroff
"""
_MASKED = (
    "systemd-networkd-wait-online", "NetworkManager-wait-online", "ifupdown-wait-online",
    "systemd-udev-trigger", "systemd-resolved", "systemd-timesyncd", "networking",
)  # fmt: skip


def run_under_systemd(directory: Path, script: str, files: Mapping[str, str] | None = None) -> str:
    """What the script printed. It ends at the first command that fails, and so does the test.

    Args:
        directory: of the test's own.
        files: by their paths in the container, written before it boots.
    """
    if os.geteuid() != 0:
        pytest.skip("only root boots a container")
    for command in ("systemd-nspawn", "systemd"):
        if shutil.which(command) is None and not Path("/lib/systemd", command).exists():
            pytest.skip(f"there is no {command}: apt-get install systemd systemd-container")
    with _copy_of_this_host(directory) as root:
        binds = _install(root)
        units = root / "etc/systemd/system"
        (units / "trial.service").write_text(_TRIAL.format(within=WITHIN))
        for name in _MASKED:
            masked = units / f"{name}.service"
            masked.unlink(missing_ok=True)
            masked.symlink_to("/dev/null")
        for path, text in (files or {}).items():
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (root / "trial.sh").write_text(script)
        done = subprocess.run(
            [
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit"),
                *("--private-network", "--link-journal=no", f"--machine=wd{os.getpid()}"),
                *binds,
                *(f"--directory={root}", "--boot", "systemd.unit=trial.service"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=WITHIN + 30,
            check=False,
            # A systemd that is older than the host's control groups can do without them here.
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": _hierarchy()},
        )
        log = root / "trial.log"
        if not log.exists():
            pytest.skip(f"no systemd boots here: {done.stdout.decode(errors='replace')[-500:]}")
        printed = log.read_text()
    assert "trial ended: success" in printed, printed[-8000:]
    return printed


def _hierarchy() -> str:
    return "1" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "0"


@contextmanager
def _copy_of_this_host(directory: Path) -> Iterator[Path]:
    memory, root = directory / "memory", directory / "root"
    memory.mkdir()
    root.mkdir()
    mounted: list[Path] = []

    def mount(target: Path, kind: str, options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", kind, "-o", options, kind, str(target)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        mounted.append(target)

    try:
        mount(memory, "tmpfs", "size=512m")
        for name in ("upper", "work"):
            (memory / name).mkdir()
        mount(root, "overlay", f"lowerdir=/,upperdir={memory}/upper,workdir={memory}/work")
        machine = root / "etc/machine-id"
        machine.unlink(missing_ok=True)
        machine.write_text("uninitialized\n")
        yield root
    finally:
        for target in reversed(mounted):
            subprocess.run(["umount", str(target)], check=True)


def _install(root: Path) -> list[str]:
    """Put the commands where the units look for them; nspawn's options for what they need."""
    python = Path(sys.executable).resolve()
    binds = [(ROOT, "/opt/source"), (Path(sysconfig.get_path("purelib")), "/opt/site")]
    if not python.is_relative_to("/usr"):
        # Somewhere below a home, maybe, which the units do not see.
        binds.append((Path(sys.base_prefix), "/opt/python"))
        python = Path("/opt/python") / python.relative_to(Path(sys.base_prefix).resolve())
    commands = root / "opt/whatsappd/bin"
    commands.mkdir(parents=True)
    for name in ("whatsappd", "whatsappctl"):
        command = commands / name
        command.write_text(
            # A Python that was moved looks for its library where it was built.
            "#!/bin/sh\n"
            "export PYTHONPATH=/opt/source:/opt/site LD_LIBRARY_PATH=/opt/python/lib\n"
            f'exec {python} -P -m {name} "$@"\n'
        )
        command.chmod(0o755)
    for _, target in binds:
        (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
    return [f"--bind-ro={source}:{target}" for source, target in binds]
