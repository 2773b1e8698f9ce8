"""A worker that was taken over reaches nothing but its own: hostile code runs in a real one, which
is linked and goes on working."""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import attacks
import hostile_worker
import pytest
import trio
from daemons import PATIENCE, Daemon, InSandbox, in_sandbox, link

from whatsappd.rpc.client import RpcClient

SUPPORT = Path(attacks.__file__).parent


class Lost(NamedTuple):
    """A sandbox whose worker of acme obeys the test; globex is its innocent neighbour."""

    daemon: Daemon
    client: RpcClient
    events: Any
    host: dict[str, Any]  # what `attacks` is told

    async def run(self, code: str) -> Any:
        """The `result` of code that runs in acme's worker."""
        directory = self.daemon.state_dir / "companies" / "acme"
        source = Path(attacks.__file__).read_text()
        orders = f"{json.dumps(self.host)}\n{source}\n{code}"
        with trio.fail_after(PATIENCE):
            await trio.to_thread.run_sync(
                (directory / hostile_worker.ORDERS).write_text, orders, abandon_on_cancel=True
            )
            answer = await trio.to_thread.run_sync(
                (directory / hostile_worker.RESULTS).read_text, abandon_on_cancel=True
            )
        result = json.loads(answer)
        assert not isinstance(result, str), result  # a traceback
        return result

    async def refused_calls(self, company: str) -> dict[str, float]:
        """How many calls of a company's workers were refused, by name, as the metrics have it."""
        text = (await self.client.call("daemon.metrics"))["text"]
        name = "whatsappd_worker_refused_calls_total"
        found = re.findall(rf'{name}{{call="(\w+)",company="{company}"}} ([0-9.]+)', text)
        return {call: float(count) for call, count in found}

    async def check(self, name: str) -> dict[str, Any]:
        report = await self.client.call("daemon.health")
        [found] = [check for check in report["checks"] if check["name"] == name]
        return dict(found)


@asynccontextmanager
async def taken_over(directory: Path, *options: str, without: str = "") -> AsyncIterator[Lost]:
    """Two linked companies, one of whose workers obeys the test.

    Args:
        without: the piece of the confinement that is left out.
    """
    config = directory / "whatsappd.toml"
    config.write_text("")
    outside = directory / "outside"
    outside.mkdir()
    (outside / "theirs").write_text("theirs")
    abstract = f"whatsappd-test-{os.getpid()}"

    def prepare(daemon: Daemon) -> None:
        daemon.wrapper = [sys.executable, str(SUPPORT / "hostile_daemon.py")]
        daemon.environment = {"PYTHONPATH": str(SUPPORT), hostile_worker.WITHOUT: without}

    with socket.socket() as port, socket.socket(socket.AF_UNIX) as named:
        port.bind(("127.0.0.1", 0))
        port.listen()
        named.bind("\0" + abstract)
        named.listen()
        async with in_sandbox("--config", str(config), *options, prepare=prepare) as sandbox:
            daemon, client, events = sandbox
            await link(client, events, "globex", "+15550200")
            await link(client, events, "acme", "+15550100")
            companies = daemon.state_dir / "companies"
            for pipe in (hostile_worker.ORDERS, hostile_worker.RESULTS):
                os.mkfifo(companies / "acme" / pipe, 0o600)
            await restart(sandbox, "acme")
            status = await client.call("daemon.status")
            pids = {each["company"]: each["worker_pid"] for each in status["companies"]}
            # An address that is mapped in this process, in the daemon and in its workers alike.
            mapped = ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p).value
            host = {
                "daemon": daemon.pid,
                "other_worker": pids["globex"],
                "state": str(daemon.state_dir),
                "database": str(daemon.state_dir / "whatsappd.db"),
                "other": str(companies / "globex"),
                "other_name": "globex",
                "config": str(config),
                "outside": str(outside),
                "library": attacks.__file__,
                "socket": str(daemon.socket),
                "abstract": abstract,
                "port": port.getsockname()[1],
                "mapped": mapped,
            }
            yield Lost(daemon, client, events, host)


async def restart(sandbox: InSandbox, company: str) -> None:
    start = len(sandbox.events.seen)
    await sandbox.client.call("session.restart", company=company)
    await sandbox.events.state(company, "connected", start=start)


async def delivered(client: RpcClient, company: str, to: str) -> None:
    row = await client.call(
        "message.send", company=company, to=to, text="still here", wait="delivered"
    )
    assert row["state"] == "delivered"


OF_THE_HOST = """
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    raised = None
except ValueError as error:
    raised = type(error).__name__
with open("/proc/self/oom_score_adj") as file:
    result = [limits, raised, file.read().strip()]
"""


async def test_hostile_code_in_a_worker_reaches_nothing_and_is_counted(tmp_path: Path) -> None:
    async with taken_over(tmp_path) as lost:
        assert await lost.refused_calls("acme") == {}  # a sound worker makes none of them
        assert (await lost.check("confinement"))["ok"]

        found = await lost.run("result = attack_all()")
        assert [name for name, refused in found["files"].items() if refused is None] == []
        assert [name for name, refused in found["calls"].items() if refused is None] == []

        # Each call that the filter refused was counted and told.
        counted = await lost.refused_calls("acme")
        expected = {call for call, _ in attacks.CALLS.values()}
        assert expected <= counted.keys()
        for call in expected:
            assert counted[call] >= sum(call == name for name, _ in attacks.CALLS.values())
        assert await lost.refused_calls("globex") == {}
        assert '"event": "worker_call_refused"' in lost.daemon.log()
        check = await lost.check("confinement")
        assert not check["ok"]
        assert "acme" in check["detail"]
        assert "globex" not in check["detail"]

        # It cannot take what the host has for all: descriptors on their way, memory.
        assert await lost.run(OF_THE_HOST) == [[512, 512], "ValueError", "500"]

        # And all that a worker is for goes on.
        assert set((await lost.run("result = work()")).values()) == {True}
        counted = await lost.refused_calls("acme")  # the C library's resolver tried Unix sockets
        await delivered(lost.client, "acme", "+15550200")
        await delivered(lost.client, "globex", "+15550100")
        await restart(InSandbox(lost.daemon, lost.client, lost.events), "acme")
        assert (await lost.check("confinement"))["ok"]  # the new worker did nothing
        assert await lost.refused_calls("acme") == counted


#: What a piece refuses that nothing else would.
OF_LANDLOCK = {
    "another company's keys",
    "the same by ..",
    "the same by /proc/self/root",
    "the same by /proc/self/cwd",
    "which companies there are",
    "the daemon's database",
    "the same, to write",
    "the configuration",
    "the users",
    "a file in /tmp",
    "a library, to write",
    "a file moved out",
    "the daemon's command line",
    "the gateway's port",
}
OF_SECCOMP = {
    "a pair of sockets",
    "netlink",
    "MPTCP",
    "a UDP address",
    "a listener",
    "the daemon's limits",
    "a handle of the daemon",
    "a process",
    "a program",
    "namespaces",
    "io_uring",
    "memory that others read",
    "watching a directory",
    "the database's mode",
    "the database's times",
    "shared memory",
}


@pytest.mark.parametrize(
    ("piece", "kind", "through"),
    [("landlock", "files", OF_LANDLOCK), ("seccomp", "calls", OF_SECCOMP)],
)
async def test_without_a_piece_the_same_code_gets_through(
    tmp_path: Path, piece: str, kind: str, through: set[str]
) -> None:
    """So what refuses it is that piece, and the test above would notice if it were lost."""
    async with taken_over(tmp_path, without=piece) as lost:
        found = await lost.run("result = attack_all()")
        assert {name for name, refused in found[kind].items() if refused is None} >= through
        if piece == "seccomp":
            # The second fence: the connection is made, and answered with a refusal.
            assert found["calls"]["the daemon's socket"] is None
            refused = "whatsappd_rpc_descendants_refused_total"
            text = (await lost.client.call("daemon.metrics"))["text"]
            assert re.search(rf"^{refused} [1-9]", text, re.MULTILINE)


async def run_ctl(daemon: Daemon, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "whatsappctl", *arguments, "--socket", str(daemon.socket)]
    ran = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return ran.returncode, ran.stdout.decode()


def older_kernel(*lacking: str) -> Callable[[Daemon], None]:
    def prepare(daemon: Daemon) -> None:
        program = str(SUPPORT / "older_kernel.py")
        daemon.wrapper = [sys.executable, program, ",".join(lacking)]

    return prepare


async def test_a_kernel_that_lacks_all_of_it_is_told_of_everywhere_and_used() -> None:
    async with in_sandbox(prepare=older_kernel("landlock", "seccomp")) as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        await delivered(client, "acme", "+15550200")
        confinement = (await client.call("daemon.status"))["confinement"]
        assert (confinement["landlock"], confinement["seccomp"]) == (0, False)
        assert "has no Landlock" in confinement["lacking"]
        assert "system calls cannot be filtered here" in confinement["lacking"]
        report = await client.call("daemon.health")
        [check] = [check for check in report["checks"] if check["name"] == "confinement"]
        assert check["ok"]  # nobody on this host can mend it
        assert check["detail"].startswith("workers are NOT confined; lacking: ")
        code, printed = await run_ctl(daemon, "status")
        assert code == 0
        assert "workers are not confined in full: this kernel" in printed
        _, printed = await run_ctl(daemon, "doctor", "--json")
        [finding] = [each for each in json.loads(printed) if each["name"] == "confinement"]
        assert finding["level"] == "warn"
        assert finding["remedy"].startswith("use Linux 6.12 or later")
        assert daemon.log().count("workers_less_confined") == 1  # for all workers together


async def test_where_it_is_required_no_worker_starts_without_it() -> None:
    options = ("--set", "sessions.confinement=required")
    async with in_sandbox(*options, prepare=older_kernel("landlock")) as (_, client, events):
        await client.call("session.start", company="acme")
        state = await events.state("acme", "backing_off")
        assert "workers must be confined (sessions.confinement)" in state["data"]["cause"]
        assert "has no Landlock" in state["data"]["cause"]
        report = await client.call("daemon.health")
        [check] = [check for check in report["checks"] if check["name"] == "confinement"]
        assert not check["ok"]
        assert check["detail"].endswith("so no worker is started")


async def test_it_can_be_switched_off_which_is_told() -> None:
    async with in_sandbox("--set", "sessions.confinement=off") as (_, client, events):
        await link(client, events, "acme", "+15550100")
        status = await client.call("daemon.status")
        assert status["confinement"]["lacking"] == "it is switched off (sessions.confinement)"
        fields = Path(f"/proc/{status['companies'][0]['worker_pid']}/status").read_text()
        assert re.search(r"^Seccomp:\s+0$", fields, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", fields, re.MULTILINE)


async def test_a_worker_that_imports_the_library_by_itself_is_confined_all_the_same(
    tmp_path: Path,
) -> None:
    """The fallback for a library that cannot be preloaded, which does more after the fork."""

    def prepare(daemon: Daemon) -> None:
        daemon.wrapper = [sys.executable, str(SUPPORT / "hostile_daemon.py")]
        daemon.environment = {"PYTHONPATH": str(SUPPORT), hostile_worker.WITHOUT: "preload"}

    async with in_sandbox(prepare=prepare) as (_, client, events):
        await link(client, events, "acme", "+15550100")
        status = await client.call("daemon.status")
        assert status["fork_server"]["problem"] == "a test wants it so"
        assert status["confinement"]["lacking"] is None
        text = (await client.call("daemon.metrics"))["text"]
        assert re.findall(r"worker_refused_calls_total{.*", text) == []


#: Exists on no host.
SERVICE_USER = 54_010


@pytest.fixture
def as_service() -> list[str]:
    """The beginning of a command that runs Python as a user who sees his own processes only."""
    if os.geteuid() != 0:
        pytest.skip("only root can start processes as other users")
    command = [sys.executable, str(SUPPORT / "as_service.py"), str(SERVICE_USER)]
    probe = subprocess.run(
        [*command, sys.executable, "-c", "import trio, neonize.download"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip(probe.stderr.strip()[-200:])
    return command


async def test_the_units_user_sees_what_workers_use_though_their_memory_is_private(
    as_service: list[str],
) -> None:
    def prepare(daemon: Daemon) -> None:
        daemon.wrapper = as_service
        daemon.environment = {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": "/nonexistent"}
        os.chown(daemon.directory, SERVICE_USER, SERVICE_USER)

    options = ["--set", "sessions.health_interval=2s", "--set", "sessions.health_deadline=2s"]
    options += ["--set", "sessions.recycle_descriptors=1", "--set", "sessions.recycle_rest=0s"]
    async with in_sandbox(*options, prepare=prepare) as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        start = len(events.seen)
        status = await client.call("daemon.status")
        pids = [daemon.pid, status["fork_server"]["pid"], status["companies"][0]["worker_pid"]]
        for pid in pids:  # what is about them in /proc is root's, and not the user's own
            assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
        for pid in pids[:2]:
            assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        text = (await client.call("daemon.metrics"))["text"]
        [private] = re.findall(r'worker_private_memory_bytes{company="acme"} ([0-9.e+]+)', text)
        assert 5e6 < float(private) < 100e6
        # Its descriptors are seen as well, and make it be recycled.
        recycled = await events.until(lambda event: event["data"].get("why") == "recycled")
        assert recycled["data"]["cause"].endswith("descriptors; a new worker takes over")
        await events.state("acme", "connected", start=start)
        assert (await client.call("daemon.status"))["confinement"]["lacking"] is None
