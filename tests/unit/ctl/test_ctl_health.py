"""`health`, `metrics` and `doctor`: what they print, how they end, and what they look at."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from scripted_daemon import Daemon, session

from whatsappctl import doctor_checks
from whatsappctl.cli import cli
from whatsappctl.doctor_checks import FAIL, OK, WARN
from whatsappd import __version__

WELL = {
    "healthy": True,
    "checks": [{"name": "disk", "ok": True, "detail": "9 MiB are free", "remedy": None}],
    "sessions": {"acme": {"ok": True, "detail": "connected", "remedy": None}},
}
ILL = {
    "healthy": False,
    "checks": [{"name": "disk", "ok": False, "detail": "0 MiB are free", "remedy": "make room"}],
    "sessions": {
        "acme": {"ok": True, "detail": "connected", "remedy": None},
        "globex": {"ok": False, "detail": "logged out\x1b[2J", "remedy": "link it again"},
    },
}
TEXT = "# HELP a_total A.\n# TYPE a_total counter\na_total 1.0\n"
METRICS = {"content_type": "text/plain", "body": gzip.compress(TEXT.encode())}
HELLO: dict[str, Any] = {"pid": os.getpid(), "version": __version__, "mode": "sandbox"}


def test_health_ends_with_0_when_all_is_well(daemon: Daemon) -> None:
    daemon.answers = {"daemon.health": WELL}
    result = daemon.invoke("health")
    assert result.exit_code == 0
    assert result.stdout == "ok    disk  9 MiB are free\n"


def test_health_ends_with_1_and_names_what_is_not_well_with_its_remedy(daemon: Daemon) -> None:
    daemon.answers = {"daemon.health": ILL}
    result = daemon.invoke("health")
    assert result.exit_code == 1
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["FAIL", "disk", "0", "MiB", "are", "free"],
        ["->", "make", "room"],
        ["FAIL", "globex", "logged", "out\\x1b[2J"],
        ["->", "link", "it", "again"],
    ]


@pytest.mark.parametrize(("report", "code"), [(WELL, 0), (ILL, 1)])
def test_health_as_json_has_the_same_exit_code(
    daemon: Daemon, report: dict[str, Any], code: int
) -> None:
    daemon.answers = {"daemon.health": report}
    result = daemon.invoke("health", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout) == report


def test_metrics_are_printed_as_they_are(daemon: Daemon) -> None:
    daemon.answers = {"daemon.metrics": METRICS}
    assert daemon.invoke("metrics").stdout == TEXT
    assert json.loads(daemon.invoke("metrics", "--json").stdout)["text"] == TEXT


def test_metrics_replace_a_file_that_anybody_may_read(daemon: Daemon, tmp_path: Path) -> None:
    daemon.answers = {"daemon.metrics": METRICS}
    target = tmp_path / "collector" / "whatsappd.prom"
    target.parent.mkdir()
    target.write_text("old")
    assert daemon.invoke("metrics", "--file", str(target)).stdout == ""
    assert target.read_text() == TEXT
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(target.parent.iterdir()) == [target]
    result = daemon.invoke("metrics", "--file", str(tmp_path / "nowhere" / "x.prom"))
    assert result.exit_code == 1
    assert "No such file" in result.stderr


def test_metrics_of_a_daemon_that_is_away_replace_the_old_ones(tmp_path: Path) -> None:
    target = tmp_path / "whatsappd.prom"
    target.write_text(TEXT)
    nobody = ["--socket", str(tmp_path / "nobody.sock")]
    result = CliRunner().invoke(cli, [*nobody, "metrics", "--file", str(target)])
    assert result.exit_code == 3
    [family] = text_string_to_metric_families(target.read_text())
    assert [(sample.name, sample.value) for sample in family.samples] == [("whatsappd_up", 0)]


def test_metrics_follow_no_link_and_replace_no_device(daemon: Daemon, tmp_path: Path) -> None:
    daemon.answers = {"daemon.metrics": METRICS}
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "link.prom").symlink_to(precious)
    os.mkfifo(tmp_path / "fifo.prom")
    for name in ("link.prom", "fifo.prom"):
        result = daemon.invoke("metrics", "--file", str(tmp_path / name))
        assert result.exit_code == 1
        assert "name a file" in result.stderr
    assert precious.read_text() == "precious"
    assert (tmp_path / "fifo.prom").is_fifo()


@pytest.mark.parametrize(
    ("option", "begins"), [("--rules", "# Prometheus alerting"), ("--dashboard", "{")]
)
def test_samples_are_printed_without_a_daemon(option: str, begins: str) -> None:
    result = CliRunner().invoke(cli, ["metrics", option])
    assert result.exit_code == 0
    assert result.stdout.startswith(begins)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    (directory / "companies" / "acme").mkdir(parents=True)
    for path in (directory, directory / "companies", directory / "companies" / "acme"):
        path.chmod(0o700)
    database = directory / "companies" / "acme" / "session.db"
    database.touch(0o600)
    return directory


def test_doctor_examines_everything_also_without_a_daemon(daemon: Daemon, state: Path) -> None:
    command = ["--socket", daemon.path, "doctor", "--json", "--state-dir", str(state)]
    result = CliRunner().invoke(cli, command)
    found = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert found["daemon"]["level"] == "fail"
    assert "whatsappd run" in found["daemon"]["detail"]
    assert found["state"]["level"] == "ok"
    assert {
        "python",
        "whatsappd",
        "neonize",
        "disk",
        "clock",
        "open files",
        "whatsapp",
        "ffmpeg",
    } <= (set(found))
    assert all(finding["remedy"] for finding in found.values() if finding["level"] != "ok")


def test_doctor_asks_the_daemon_where_its_state_is(
    daemon: Daemon, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "_unreachable", lambda *_: None)
    (state / "companies" / "acme" / "session.db").chmod(0o644)
    daemon.answers = {
        "daemon.hello": HELLO,
        "daemon.status": {"state_dir": str(state), "companies": [session()]},
    }
    result = daemon.invoke("doctor")
    assert result.exit_code == 1
    assert "in sandbox mode" in result.stdout
    assert "session.db is open to others (mode 0644)" in result.stdout
    assert f"-> chmod -R go= {state}" in result.stdout


def test_another_version_that_runs_is_noticed() -> None:
    found = {
        finding.name: finding for finding in doctor_checks.versions({**HELLO, "version": "0.0.1"})
    }
    assert found["whatsappd"].level == WARN
    assert found["whatsappd"].remedy == "restart the daemon"
    assert found["neonize"].level == OK


def test_state_of_another_user_cannot_be_vouched_for(state: Path) -> None:
    assert doctor_checks.state_permissions(str(state)).level == OK
    state.chmod(0o755)
    assert doctor_checks.state_permissions(str(state)).level == FAIL
    assert doctor_checks.state_permissions(str(state / "missing")).level == OK
    assert doctor_checks.count_companies(str(state)) == 1


def test_a_socket_in_the_state_directory_may_be_open_to_its_group(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(state)  # a socket's path has at most 107 bytes
        listener.bind("d.sock")
        (state / "d.sock").chmod(0o660)
        assert doctor_checks.state_permissions(str(state)).level == OK


def test_a_socket_that_everybody_reaches_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch()
    path.chmod(0o666)
    tmp_path.chmod(0o755)
    [finding] = doctor_checks.socket_permissions(str(path))
    assert finding.level == WARN
    tmp_path.chmod(0o750)
    [finding] = doctor_checks.socket_permissions(str(path))
    assert finding.level == OK


def test_too_few_descriptors_for_the_companies() -> None:
    assert doctor_checks.open_files(os.getpid(), 1).level == OK
    finding = doctor_checks.open_files(os.getpid(), 10**9)
    assert finding.level in (FAIL, OK)  # OK only where there is no limit
    assert finding.remedy is None or "LimitNOFILE" in finding.remedy


def test_a_disk_without_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor_checks.disk(str(tmp_path / "not" / "yet")).level in (OK, FAIL)
    monkeypatch.setattr(doctor_checks, "_FREE_BYTES", 1 << 62)
    assert doctor_checks.disk(str(tmp_path)).level == FAIL


def test_whatsapp_that_cannot_be_reached_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "_unreachable", lambda *_: "no address")
    finding = doctor_checks.whatsapp(is_sandboxed=False)
    assert finding.level == FAIL
    assert finding.detail == "WhatsApp cannot be reached: no address"
    assert doctor_checks.whatsapp(is_sandboxed=True).level == OK


def test_reaching_means_a_name_and_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert doctor_checks._unreachable("127.0.0.1", port, 1) is None
    assert "refused" in (doctor_checks._unreachable("127.0.0.1", port, 1) or "")
    assert "no address for" in (doctor_checks._unreachable("no-such-host.invalid", port, 3) or "")


def test_a_name_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for_ever = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [for_ever.wait(10)][:0])
    told = doctor_checks._unreachable("127.0.0.1", 1, 0.01)
    assert told == "no answer from the name server within 0.01 s"
    for_ever.set()
