"""Configurations that are none, at the start and at a reload; users without a home or a name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from daemons import PATIENCE, Daemon, running_daemon

from whatsappd.errors import EXIT_USAGE


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop_of_links(path: Path) -> None:
    path.symlink_to(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def directory(path: Path) -> None:
    path.mkdir()


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def no_utf8(path: Path) -> None:
    path.write_bytes(b'log_level = "\xff"')


ODD: dict[Callable[[Path], None], str] = {
    fifo: "is no regular file",
    loop_of_links: "Too many levels of symbolic links",
    device: "is no regular file",
    directory: "is no regular file",
    huge: "is larger than",
    no_utf8: "is no UTF-8",
}


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


async def test_a_reload_of_what_is_no_configuration_changes_nothing_else() -> None:
    """Read from a default place, and so looked for before it is read."""

    def prepare(daemon: Daemon) -> None:
        daemon.environment["CONFIGURATION_DIRECTORY"] = str(daemon.directory)
        (daemon.directory / "whatsappd.toml").write_text('log_level = "info"\n')

    async with running_daemon("--sandbox", prepare=prepare) as daemon, daemon.client() as client:
        path = daemon.directory / "whatsappd.toml"
        for number, (make, words) in enumerate(ODD.items(), 1):
            remove(path)
            make(path)
            os.kill(daemon.pid, signal.SIGHUP)
            with trio.fail_after(PATIENCE):
                while len(refused := reloads(daemon, "configuration_not_reloaded")) < number:
                    await trio.sleep(0.02)
            assert words in refused[-1]["reason"]
            await client.call("daemon.hello")
        remove(path)
        path.write_text('log_level = "info"\n[limits]\nper_company_per_minute = 7\n')
        os.kill(daemon.pid, signal.SIGHUP)
        with trio.fail_after(PATIENCE):
            while not reloads(daemon, "configuration_reloaded"):
                await trio.sleep(0.02)
        assert reloads(daemon, "task_failed") == []


def reloads(daemon: Daemon, event: str) -> list[dict[str, str]]:
    found = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_a_start_with_what_is_no_configuration_is_refused_in_words(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "whatsappd.toml"
    make(path)
    command = [sys.executable, "-m", "whatsappd", "run", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == EXIT_USAGE
    assert ODD[make] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
async def test_a_user_without_a_name_home_or_environment() -> None:
    """`uid` 54321 is nobody's here; as for containers that run under a number."""
    with tempfile.TemporaryDirectory(prefix="wd-") as name:
        place = Path(name)
        os.chown(place, 54321, 54321)
        place.chmod(0o755)
        # Where the package is may be closed to other users, as it is in this test's own home.
        program = "import os, sys; os.setgid(54321); os.setuid(54321); os.environ.clear()\n"
        bare = [sys.executable, "-c", program + "from whatsappd.cli import main; main()", "run"]

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            # Imported as root, because this test's interpreter may be out of the other's reach.
            code = "import whatsappd.app, whatsappd.config.load, whatsappd.cli\n" + bare[2]
            return subprocess.run(
                [bare[0], "-c", code, "run", *arguments],
                capture_output=True, text=True, timeout=PATIENCE, check=False, cwd="/",
            )  # fmt: skip

        done = await trio.to_thread.run_sync(run)
        assert done.returncode == EXIT_USAGE
        assert "Traceback" not in done.stderr
        for words in ("state_dir", "--state-dir or WHATSAPPD_STATE_DIR", "--socket or WHATSAPPD"):
            assert words in done.stderr


def test_a_place_that_is_none_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "whatsappd", "run", "--state-dir", str(tmp_path / "state")]
    done = subprocess.run(
        [*command, "--socket", str(tmp_path / "file" / "s")],
        env={}, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--socket" in done.stderr
    assert "Traceback" not in done.stderr
