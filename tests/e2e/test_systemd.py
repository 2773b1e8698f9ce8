"""Under systemd, as far as a machine without a running one allows: what is told, what is inherited,
and whether the unit files are right and leave the daemon enough to work."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket as sockets
import sqlite3
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import confined
import pytest
import trio
from daemons import PATIENCE, Daemon, alive, following, link, running_daemon
from systemd_analyze import analyze

from whatsappd.clock import BOOT_ID_VARIABLE
from whatsappd.config.sources import SYSTEM_FILE
from whatsappd.confinement import landlock
from whatsappd.errors import EXIT_FAILED
from whatsappd.model.paths import SYSTEM_SOCKET, SYSTEM_STATE_DIR

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "whatsappd.service"

#: Puts the inherited descriptors where systemd puts them, and says for whom they are.
ACTIVATOR = """
import os, sys
count = int(sys.argv[1])
for place, descriptor in enumerate(sys.argv[2 : 2 + count], 3):
    os.dup2(int(descriptor), place, inheritable=True)
os.environ.update(LISTEN_PID=os.environ.get("TEST_LISTEN_PID") or str(os.getpid()))
os.environ.update(LISTEN_FDS=str(count))
os.execv(sys.argv[2 + count], sys.argv[2 + count :])
"""


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[dict[str, str]] = []  # one for each datagram
        self.senders: set[int] = set()
        self._socket = sockets.socket(
            sockets.AF_UNIX, sockets.SOCK_DGRAM | sockets.SOCK_CLOEXEC | sockets.SOCK_NONBLOCK
        )
        self._socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_PASSCRED, 1)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._more = trio.Event()

    async def listen(self) -> None:
        with self._socket:
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                data, ancillary, _, _ = self._socket.recvmsg(4096, 1024)
                lines = data.decode().splitlines()
                self.heard.append(dict(line.split("=", 1) for line in lines))
                for _, _, credentials in ancillary:
                    self.senders.add(struct.unpack("=iII", credentials[:12])[0])
                self._more.set()
                self._more = trio.Event()

    async def until(
        self, wanted: Callable[[dict[str, str]], object], *, start: int = 0
    ) -> dict[str, str]:
        """The first message from the index `start` on that is wanted."""
        place = start
        with trio.move_on_after(PATIENCE):
            while True:
                while place < len(self.heard):
                    if wanted(self.heard[place]):
                        return self.heard[place]
                    place += 1
                await self._more.wait()
        raise AssertionError(f"not told within {PATIENCE} s: {self.heard[-10:]}")

    async def status(self, text: str) -> None:
        await self.until(lambda told: text in told.get("STATUS", ""))


@asynccontextmanager
async def service(
    *arguments: str, address: str | None = None, **environment: str
) -> AsyncIterator[tuple[Daemon, Manager]]:
    """A daemon that is told about systemd, and what plays systemd."""
    managers: list[Manager] = []

    def prepare(daemon: Daemon) -> None:
        manager = Manager(address or str(daemon.directory / "notify"))
        managers.append(manager)
        daemon.environment = {"NOTIFY_SOCKET": manager.address, **environment}

    async with running_daemon(*arguments, prepare=prepare) as daemon:
        [manager] = managers
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.listen)
            yield daemon, manager
            nursery.cancel_scope.cancel()


# --- what systemd is told -----------------------------------------------------------------------


async def test_systemd_is_told_of_readiness_state_and_stop() -> None:
    async with service("--sandbox") as (daemon, manager):
        ready = await manager.until(lambda told: told.get("READY") == "1")
        assert ready["MAINPID"] == str(daemon.pid)
        assert ready["STATUS"] == "no companies yet"
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
            await manager.status("1 of 1 companies connected")
            await client.call("session.start", company="globex")
            await manager.status("1 of 2 companies connected, 1 pairing")
        before = len(manager.heard)
        assert await daemon.stop() == 0
        told = [key for each in manager.heard[before:] for key in each]
        assert told.index("STOPPING") < told.index("EXTEND_TIMEOUT_USEC")
        extended = await manager.until(lambda told: "EXTEND_TIMEOUT_USEC" in told)
        assert int(extended["EXTEND_TIMEOUT_USEC"]) >= 5_000_000
        assert "sessions to go" in extended["STATUS"]
        # Without a watchdog in the unit, none is fed.
        assert not any("WATCHDOG" in each for each in manager.heard)
        # NotifyAccess=main would ignore anybody else.
        assert manager.senders == {daemon.pid}


async def test_an_abstract_notify_socket_is_understood() -> None:
    async with service(address=f"@whatsappd-test-{os.getpid()}") as (daemon, manager):
        ready = await manager.until(lambda told: told.get("READY") == "1")
        assert ready["MAINPID"] == str(daemon.pid)


async def test_a_reload_is_announced_and_ended() -> None:
    async with service("--sandbox") as (daemon, manager):
        await manager.until(lambda told: "READY" in told)
        start = len(manager.heard)
        os.kill(daemon.pid, signal.SIGHUP)
        reloading = await manager.until(lambda told: "RELOADING" in told, start=start)
        assert int(reloading["MONOTONIC_USEC"]) > 0
        await manager.until(lambda told: "READY" in told, start=start)


async def test_a_failed_reload_ends_too(tmp_path: Path) -> None:
    config = tmp_path / "whatsappd.toml"
    config.write_text("")
    async with service("--sandbox", "--config", str(config)) as (daemon, manager):
        await manager.until(lambda told: "READY" in told)
        start = len(manager.heard)
        config.write_text("nonsense")
        os.kill(daemon.pid, signal.SIGHUP)
        await manager.until(lambda told: "RELOADING" in told, start=start)
        await manager.until(lambda told: "READY" in told, start=start)


async def test_the_watchdog_is_fed_while_the_store_answers_and_not_otherwise() -> None:
    async with service("--sandbox", WATCHDOG_USEC="600000") as (daemon, manager):
        for _ in range(3):
            await manager.until(lambda told: "WATCHDOG" in told, start=len(manager.heard))
        # Another process holds the database: the writer thread waits, and answers nobody.
        with closing(sqlite3.connect(daemon.state_dir / "whatsappd.db", timeout=20)) as thief:
            thief.isolation_level = None
            thief.execute("BEGIN IMMEDIATE")
            start = len(manager.heard)
            await manager.until(lambda told: "unhealthy" in told.get("STATUS", ""), start=start)
            withheld = len(manager.heard)
            await trio.sleep(1.5)  # five times as often as it would be fed
            fed = [told for told in manager.heard[withheld:] if "WATCHDOG" in told]
            thief.execute("ROLLBACK")
        assert fed == []
        await manager.until(lambda told: "WATCHDOG" in told, start=len(manager.heard))


async def test_a_daemon_that_the_watchdog_aborts_says_where_it_was() -> None:
    async with service("--sandbox") as (daemon, _manager):
        assert await daemon.stop(signal.SIGABRT) == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in daemon.log()
        assert "whatsappd/cli.py" in daemon.log()


async def test_a_watchdog_that_is_meant_for_another_process_is_not_fed() -> None:
    async with service("--sandbox", WATCHDOG_USEC="200000", WATCHDOG_PID="1") as (daemon, manager):
        await manager.until(lambda told: "READY" in told)
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
        assert not any("WATCHDOG" in told for told in manager.heard)


async def test_what_systemd_told_the_daemon_is_not_handed_on() -> None:
    async with service("--sandbox", WATCHDOG_USEC="60000000") as (daemon, manager):
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
            status = await client.call("daemon.status")
        pids = [status["fork_server"]["pid"], status["companies"][0]["worker_pid"]]
        for pid in pids:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            for name in (b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"LISTEN_FDS"):
                assert name not in environment
        assert manager.senders == {daemon.pid}


async def stop_with(count: int) -> None:
    """Stop a daemon with `count` linked sessions within the time of the unit."""
    [limit] = re.findall(r"^TimeoutStopSec=(\d+)s$", UNIT.read_text(), re.MULTILINE)
    async with service("--sandbox") as (daemon, manager):
        async with daemon.client() as client, following(client) as events:
            for number in range(count):
                await link(client, events, f"c{number}", f"+1555{number:07}")
            status = await client.call("daemon.status")
        pids = [each["worker_pid"] for each in status["companies"]]
        assert len(pids) == count
        began = trio.current_time()
        assert await daemon.stop() == 0
        took = trio.current_time() - began
        print(f"{count} sessions stopped in {took:.2f} s, of {limit} s")
        assert took < int(limit)
        assert [pid for pid in pids if alive(pid)] == []
        told = [each for each in manager.heard if "EXTEND_TIMEOUT_USEC" in each]
        assert f"{count} sessions to go" in told[0]["STATUS"]


async def test_a_stop_takes_less_than_the_unit_allows() -> None:
    await stop_with(10)


@pytest.mark.soak
async def test_a_stop_takes_less_than_the_unit_allows_with_100_sessions() -> None:
    await stop_with(100)


# --- what systemd passes ------------------------------------------------------------------------


@asynccontextmanager
async def activated(directory: Path, count: int = 1) -> AsyncIterator[tuple[Daemon, Path]]:
    """A daemon, not started yet, for which somebody listens already; and where."""
    listening = []
    for number in range(count):
        sock = sockets.socket(sockets.AF_UNIX)
        sock.bind(str(directory / f"activated{number}"))
        sock.listen(64)
        listening.append(sock)
    daemon = Daemon(directory, "--sandbox")
    daemon.descriptors = tuple(sock.fileno() for sock in listening)
    daemon.wrapper = [
        *(sys.executable, "-c", ACTIVATOR, str(count)),
        *map(str, daemon.descriptors),
    ]
    try:
        yield daemon, directory / "activated0"
    finally:
        for sock in listening:
            sock.close()
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.process.kill()
            with trio.CancelScope(shield=True):
                await daemon.process.wait()


async def test_a_listening_socket_is_taken_over_with_those_who_wait(tmp_path: Path) -> None:
    async with activated(tmp_path) as (daemon, path):
        own = daemon.socket
        daemon.socket = path
        for _ in range(2):
            # Somebody calls before the daemon runs: systemd listens, so nobody is refused.
            with sockets.socket(sockets.AF_UNIX) as early:
                early.connect(str(path))
                early.sendall(b"\x94\x00\x07\xacdaemon.hello\x90")
                early.settimeout(PATIENCE)
                await daemon.start()
                answer = await trio.to_thread.run_sync(early.recv, 64)
                assert answer.startswith(b"\x94\x01\x07\xc0")
            async with daemon.client() as client:
                assert (await client.call("daemon.status"))["socket"] == str(path)
            assert not own.exists()
            assert await daemon.stop() == 0
            assert path.is_socket()  # it is not the daemon's to remove


async def test_a_socket_that_is_meant_for_another_process_is_left_alone(tmp_path: Path) -> None:
    async with activated(tmp_path) as (daemon, path):
        daemon.environment = {"TEST_LISTEN_PID": "1"}
        await daemon.start()
        async with daemon.client() as client:
            assert (await client.call("daemon.status"))["socket"] == str(daemon.socket)
        assert daemon.socket != path
        await daemon.stop()


async def test_two_sockets_are_one_too_many(tmp_path: Path) -> None:
    async with activated(tmp_path, count=2) as (daemon, _path):
        process = await daemon.launch()
        with trio.fail_after(PATIENCE):
            assert await process.wait() == EXIT_FAILED
        assert "must have a single ListenStream=" in daemon.log()


async def test_a_descriptor_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    async with activated(tmp_path) as (daemon, _path):
        with sockets.socket(sockets.AF_UNIX) as idle:
            daemon.descriptors = (idle.fileno(),)
            daemon.wrapper[-1] = str(idle.fileno())
            process = await daemon.launch()
            with trio.fail_after(PATIENCE):
                assert await process.wait() == EXIT_FAILED
        assert "is no listening Unix stream socket" in daemon.log()


# --- the unit files -----------------------------------------------------------------------------


def with_this_program(unit: Path, directory: Path) -> Path:
    """A copy of a unit that starts a program which exists here."""
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.M)
    copy = directory / unit.name
    copy.write_text(text)
    return copy


def test_the_units_are_right(tmp_path: Path) -> None:
    units = [
        with_this_program(UNIT, tmp_path),
        with_this_program(SYSTEMD / "whatsappd.socket", tmp_path),
    ]
    assert analyze("verify", "--man=no", *map(str, units)) == ""


def test_the_users_unit_is_right(tmp_path: Path) -> None:
    unit = with_this_program(SYSTEMD / "user" / "whatsappd.service", tmp_path)
    assert analyze("verify", "--user", "--man=no", str(unit)) == ""


@pytest.mark.parametrize("unit", [UNIT, SYSTEMD / "user" / "whatsappd.service"], ids=str)
def test_workers_get_time_to_save_what_came_when_the_daemon_dies(unit: Path) -> None:
    # With mixed, systemd kills them at once; see `test_inbound_loss` for what its signals do.
    assert "\nKillMode=control-group\n" in unit.read_text()


def test_the_unit_exposes_little() -> None:
    printed = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    [exposure] = re.findall(r"Overall exposure level for whatsappd.service: ([0-9.]+)", printed)
    assert float(exposure) <= 1.5


def test_the_snippets_make_the_user_and_the_sockets_directory(tmp_path: Path) -> None:
    if shutil.which("systemd-sysusers") is None or shutil.which("systemd-tmpfiles") is None:
        pytest.skip("systemd-sysusers or systemd-tmpfiles is missing")
    if os.geteuid() != 0:
        pytest.skip("only root may make files of other users")
    (tmp_path / "etc").mkdir()
    users = SYSTEMD / "sysusers.d" / "whatsappd.conf"
    places = SYSTEMD / "tmpfiles.d" / "whatsappd.conf"
    root = f"--root={tmp_path}"
    subprocess.run(["systemd-sysusers", root, str(users)], check=True, capture_output=True)
    subprocess.run(["systemd-tmpfiles", root, "--create", str(places)], check=True)
    [line] = [
        line
        for line in (tmp_path / "etc/passwd").read_text().splitlines()
        if line.startswith("whatsappd:")
    ]
    _, _, uid, gid, _, home, shell = line.split(":")
    assert (home, shell) == ("/var/lib/whatsappd", "/usr/sbin/nologin")
    made = (tmp_path / "run/whatsappd").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (int(uid), int(gid), 0o750)
    made = (tmp_path / "etc/whatsappd").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (0, 0o755)


def test_the_units_places_are_those_of_roots_commands() -> None:
    text = UNIT.read_text()
    assert f"StateDirectory={Path(SYSTEM_STATE_DIR).name}\n" in text
    assert f"WHATSAPPD_STATE_DIR=%S/{Path(SYSTEM_STATE_DIR).name}" in text
    socket = SYSTEM_SOCKET.replace("/run/", "%t/")
    assert f"WHATSAPPD_SOCKET={socket}\n" in text
    assert SYSTEM_FILE.parent == Path("/etc/whatsappd")
    assert "CONFIGURATION_DIRECTORY=%E/whatsappd\n" in text
    assert f"ListenStream={socket}\n" in (SYSTEMD / "whatsappd.socket").read_text()


def test_the_unit_names_the_boot_that_it_hides_from_the_daemon() -> None:
    text = UNIT.read_text()
    assert "\nProcSubset=pid\n" in text
    assert f"\nEnvironment={BOOT_ID_VARIABLE}=%b\n" in text


def landlock_here() -> int:
    try:
        return landlock.abi_version()
    except OSError:
        return 0


@pytest.fixture
def confinement() -> list[str]:
    """The beginning of a command that runs another under the unit's restrictions."""
    command = [sys.executable, confined.__file__, str(UNIT)]
    probe = subprocess.run([*command, "/bin/true"], capture_output=True, text=True, check=False)
    if probe.returncode == confined.UNAVAILABLE:
        pytest.skip(probe.stderr.strip())
    assert probe.returncode == 0, probe.stderr
    return command


async def test_the_daemon_works_under_the_units_restrictions(confinement: list[str]) -> None:
    def confine(daemon: Daemon) -> None:
        daemon.wrapper = confinement

    async with running_daemon("--sandbox", prepare=confine) as daemon:
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
            await link(client, events, "globex", "+15550200")
            status = await client.call("session.status", company="acme")
            # The restrictions are real, and reach the workers.
            fields = Path(f"/proc/{status['worker_pid']}/status").read_text()
            assert re.search(r"^Seccomp:\s+2$", fields, re.MULTILINE)
            # And leave the workers' own to them, which come on top.
            confined = (await client.call("daemon.status"))["confinement"]
            assert (confined["seccomp"], confined["counted"]) == (True, True)
            assert confined["landlock"] == landlock_here()
            assert re.search(r"^CapBnd:\s+0+$", fields, re.MULTILINE)
            row = await client.call(
                "message.send", company="acme", to="+15550200", text="x", wait="delivered"
            )
            assert row["state"] == "delivered"
            # A crash and a new worker; the metrics, which look at processes; a clean stop.
            start = len(events.seen)
            os.kill(status["worker_pid"], signal.SIGKILL)
            await events.state("acme", "connected", start=start)
            await client.call("daemon.metrics")
            await client.call("daemon.health")
        assert await daemon.stop() == 0
