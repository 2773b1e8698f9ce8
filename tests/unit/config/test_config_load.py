"""Settings from everywhere at once: which wins, and what is said about those that are wrong."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from whatsappd.config.load import Configuration, load
from whatsappd.config.settings import Settings
from whatsappd.config.sources import Sources, default_file
from whatsappd.errors import BadConfiguration
from whatsappd.model import paths
from whatsappd.model.access import AccessRule, Subject


def sources(tmp_path: Path, toml: str | None = None, **more: Any) -> Sources:
    path = tmp_path / "whatsappd.toml"
    # Without a file of the host's: it is not the test's.
    path.write_text("" if toml is None else toml)
    return Sources(more.pop("environment", {}), config=path, **more)


def problems(given: Sources) -> list[dict[str, Any]]:
    with pytest.raises(BadConfiguration) as caught:
        load(given)
    for problem in caught.value.data["problems"]:
        assert problem["key"] in caught.value.message
        assert problem["message"] in caught.value.message
    found: list[dict[str, Any]] = caught.value.data["problems"]
    return found


def complaint(given: Sources) -> dict[str, Any]:
    [problem] = problems(given)
    return problem


def test_nothing_given_gives_the_defaults(tmp_path: Path) -> None:
    configuration = load(sources(tmp_path))
    assert configuration.settings.send_limits.per_minute == 30
    assert set(configuration.origins.values()) == {"default"}
    assert configuration.warnings == ()


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    toml = 'log_level = "debug"\nlog_format = "json"\n[queue]\nlimit = 1\n'
    given = sources(
        tmp_path,
        toml,
        environment={"WHATSAPPD_LOG_FORMAT": "console", "WHATSAPPD_QUEUE_LIMIT": "2"},
        arguments={"queue.limit": ("--set", "3")},
    )
    settings, origins, file, _ = load(given)
    assert (settings.logs.level, settings.logs.format, settings.sessions.queue_limit) == (
        "debug",
        "console",
        3,
    )
    assert file == tmp_path / "whatsappd.toml"
    assert origins["log_level"] == str(file)
    assert origins["log_format"] == "WHATSAPPD_LOG_FORMAT"
    assert origins["queue.limit"] == "--set"
    assert origins["socket_mode"] == "default"


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    given = sources(tmp_path, environment={"WHATSAPPD_QUEUE_LIMIT": ""})
    assert load(given).origins["queue.limit"] == "default"


def test_all_problems_are_told_at_once_with_key_value_origin_and_remedy(tmp_path: Path) -> None:
    toml = """
        log_level = "loud"
        [limits]
        per_company_per_minute = "30"
        [sessions]
        retry_base = "soon"
    """
    given = sources(
        tmp_path,
        toml,
        environment={"WHATSAPPD_QUEUE_LIMIT": "none"},
        arguments={"socket_mode": ("--set", "rw")},
    )
    found = problems(given)
    assert [problem["key"] for problem in found] == [
        "socket_mode",
        "log_level",
        "limits.per_company_per_minute",
        "queue.limit",
        "sessions.retry_base",
    ]
    by_key = {problem["key"]: problem for problem in found}
    assert by_key["queue.limit"] == {
        "key": "queue.limit",
        "value": '"none"',
        "origin": "WHATSAPPD_QUEUE_LIMIT",
        "message": "is no whole number; write a whole number from 1 to 1000000",
    }
    assert "remove the quotes" in by_key["limits.per_company_per_minute"]["message"]
    assert "write one of debug, info" in by_key["log_level"]["message"]


def test_a_wrong_value_that_another_hides_is_told_too(tmp_path: Path) -> None:
    given = sources(tmp_path, "[queue]\nlimit = 0\n", environment={"WHATSAPPD_QUEUE_LIMIT": "2"})
    assert complaint(given)["origin"] == str(tmp_path / "whatsappd.toml")


@pytest.mark.parametrize(
    ("toml", "key", "near"),
    [
        ("log_leve = 1", "log_leve", "log_level"),
        (
            "[limits]\nper_compny_per_minute = 1",
            "limits.per_compny_per_minute",
            "limits.per_company",
        ),
        ("[limit]\nredis_url = ''", "limit", "limits"),
        ("per_phone_per_minute = 1", "per_phone_per_minute", "limits.per_phone_per_minute"),
        ("[limits]\ncold_per_day = 1", "limits.cold_per_day", "outreach.cold_per_day"),
        ("[acces]\nuser = 'x'", "acces", "access"),
        ("xyzzy = 1", "xyzzy", "whatsappd check --sample"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(
    tmp_path: Path, toml: str, key: str, near: str
) -> None:
    found = complaint(sources(tmp_path, toml))
    assert found["key"] == key
    assert near in found["message"]


def test_an_unknown_variable_is_a_warning_that_names_the_nearest(tmp_path: Path) -> None:
    given = sources(
        tmp_path,
        environment={
            "WHATSAPPD_LIMITS_PER_COMPANY_PER_MINUT": "3",
            "WHATSAPPD_SERVICE_HOST": "10.0.0.1",  # Kubernetes sets it for a service of our name
            "WHATSAPPD_CONFIG": "/nowhere",  # --config comes before it
        },
    )
    near, kubernetes = load(given).warnings
    assert "WHATSAPPD_LIMITS_PER_COMPANY_PER_MINUTE?" in near
    assert "WHATSAPPD_SERVICE_HOST is no setting" in kubernetes


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("log_level = ", "is no TOML"),
        ("limits = 3", r"write \[limits\]"),
        ("[access]\nuser = 'x'", "two brackets"),
        ("[log_level]\nx = 1", "one of debug"),
    ],
)
def test_a_file_of_the_wrong_form(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(BadConfiguration, match=words):
        load(sources(tmp_path, toml))


def test_a_variable_that_is_no_utf8(tmp_path: Path) -> None:
    given = Sources({"WHATSAPPD_STATE_DIR": os.fsdecode(b"/srv/caf\xe9")})
    told = complaint(given)
    assert told["key"] == "state_dir"
    assert "is no UTF-8 text" in told["message"]


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert "correct --config" in complaint(Sources({}, config=missing))["message"]
    by_variable = Sources({"WHATSAPPD_CONFIG": str(missing)})
    assert "correct WHATSAPPD_CONFIG" in complaint(by_variable)["message"]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "whatsappd.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "is no UTF-8" in complaint(Sources({}, config=path))["message"]
    assert "is no regular file" in complaint(Sources({}, config=tmp_path))["message"]


def test_a_file_that_everybody_may_write_is_doubtful(tmp_path: Path) -> None:
    given = sources(tmp_path)
    assert given.config
    given.config.chmod(0o666)
    [warning] = load(given).warnings
    assert f"chmod o-w {given.config}" in warning


def test_where_the_file_is_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_file({"CONFIGURATION_DIRECTORY": "/etc/x:/etc/y"}) == Path(
        "/etc/x/whatsappd.toml"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_file({}) == Path("/etc/whatsappd/whatsappd.toml")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_file({"XDG_CONFIG_HOME": "/home/x/.c"}) == Path(
        "/home/x/.c/whatsappd/whatsappd.toml"
    )
    monkeypatch.setenv("HOME", "/home/x")
    assert default_file({"XDG_CONFIG_HOME": "relative"}) == Path(
        "/home/x/.config/whatsappd/whatsappd.toml"
    )


def test_a_default_file_may_be_missing(tmp_path: Path) -> None:
    configuration = load(Sources({"CONFIGURATION_DIRECTORY": str(tmp_path)}))
    assert configuration.file is None
    (tmp_path / "whatsappd.toml").write_text("[queue]\nlimit = 3\n")
    configuration = load(Sources({"CONFIGURATION_DIRECTORY": str(tmp_path)}))
    assert configuration.settings.sessions.queue_limit == 3


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("[sessions]\nretry_base = '10s'\nretry_cap = '1s'", "sessions.retry_base"),
        (
            "[sessions]\nhealth_interval = '5s'\nhealth_deadline = '6s'",
            "sessions.health_deadline",
        ),
        ("socket_group = 'no-such-group-here'", "socket_group"),
    ],
)
def test_values_that_contradict_each_other_or_the_host(tmp_path: Path, toml: str, key: str) -> None:
    assert complaint(sources(tmp_path, toml))["key"] == key


def test_one_sandbox_at_a_time(tmp_path: Path) -> None:
    given = sources(tmp_path, sandbox=True, sandbox_at=tmp_path / "info")
    assert "not both" in complaint(given)["message"]


def test_a_sandbox_has_a_state_directory_of_its_own(tmp_path: Path) -> None:
    real = load(sources(tmp_path)).settings.state.directory
    assert load(sources(tmp_path, sandbox=True)).settings.state.directory == real.with_name(
        f"{real.name}-sandbox"
    )
    chosen = sources(tmp_path, 'state_dir = "/srv/w"', sandbox=True)
    assert load(chosen).settings.state.directory == Path("/srv/w")


def test_a_password_is_shown_in_no_complaint(tmp_path: Path) -> None:
    given = sources(tmp_path, '[limits]\nredis_url = "http://:geheim@host"')
    with pytest.raises(BadConfiguration) as caught:
        load(given)
    assert "geheim" not in str(caught.value)
    assert "geheim" not in str(caught.value.data)


# --- access rules -----------------------------------------------------------------------------


def rules(configuration: Configuration) -> tuple[AccessRule, ...]:
    settings: Settings = configuration.settings
    return settings.access


def test_access_rules_by_name_and_number(tmp_path: Path) -> None:
    root, first = pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name
    toml = f"""
        [[access]]
        user = "{root}"
        [[access]]
        group = "{first}"
        companies = ["acme", "globex"]
        read_only = true
        [[access]]
        user = 4711
        companies = ["acme"]
    """
    assert rules(load(sources(tmp_path, toml))) == (
        AccessRule(Subject.USER, 0, root),
        AccessRule(Subject.GROUP, 0, first, frozenset({"acme", "globex"}), True),
        AccessRule(Subject.USER, 4711, "4711", frozenset({"acme"})),
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("companies = ['acme']", "needs either user or group"),
        ("user = 1\ngroup = 2", "needs either user or group"),
        ("user = 'no-such-user-here'", "this host has no user 'no-such-user-here'"),
        ("group = 'no-such-group-here'", "this host has no group"),
        ("user = -1", "no possible number"),
        ("user = true", "neither a name nor a number"),
        ("user = ''", "neither a name nor a number"),
        ("user = 1\ncompanies = 'acme'", "no list of company ids"),
        ("user = 1\ncompanies = []", "no list of company ids"),
        ("user = 1\ncompanies = ['../x']", "no company id"),
        ("user = 1\ncompanies = [1]", "no company id"),
        ("user = 1\nread_only = 'yes'", "neither true nor false"),
        ("user = 1\ncompany = 'acme'", "has no key 'company'"),
    ],
)
def test_access_rules_that_are_refused(tmp_path: Path, rule: str, words: str) -> None:
    found = complaint(sources(tmp_path, f"[[access]]\nuser = 1\n[[access]]\n{rule}\n"))
    assert found["key"] == "access[2]"
    assert words in found["message"]


# --- files that are none ------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(BadConfiguration) as caught:
        load(Sources({}, config=path))
    assert str(path) in caught.value.message
    return caught.value.message


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo, loop = tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    for path in (fifo, Path("/dev/zero"), Path("/dev/null"), Path("/dev/tty"), tmp_path):
        assert "is no regular file" in refusal(path) or "cannot be read" in refusal(path)
    assert "cannot be read: Too many levels of symbolic links" in refusal(loop)
    assert "cannot be read: Not a directory" in refusal(Path("/dev/null/x"))


def test_a_default_file_that_cannot_be_looked_at_is_no_missing_one(tmp_path: Path) -> None:
    loop = tmp_path / "whatsappd.toml"
    loop.symlink_to(loop)
    with pytest.raises(BadConfiguration, match="Too many levels"):
        load(Sources({"CONFIGURATION_DIRECTORY": str(tmp_path)}))
    # What is missing is missing, also below what is no directory.
    load(Sources({"CONFIGURATION_DIRECTORY": str(loop.parent / "none"), "HOME": "/"}))
    load(Sources({"CONFIGURATION_DIRECTORY": "/dev/null", "HOME": "/"}))


def test_a_huge_file_is_refused_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "is larger than 1024 KiB" in refusal(path)


def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.toml"
    path.write_text('log_level = "debug"\n')
    real, changes = os.fstat, 2

    def fstat(descriptor: int) -> os.stat_result:
        nonlocal changes
        found = real(descriptor)
        if changes and stat.S_ISREG(found.st_mode):
            changes -= 1
            with path.open("a") as file:
                file.write("# more\n")
        return found

    monkeypatch.setattr("whatsappd.config.sources.os.fstat", fstat)
    assert load(Sources({}, config=path)).settings.logs.level == "debug"
    changes = 1000
    assert "changes while it is read" in refusal(path)


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b'\xef\xbb\xbflog_level = "debug"\r\n')
    assert load(Sources({}, config=path)).settings.logs.level == "debug"
    path.write_bytes(b'log_level = "\xfc"\n')
    assert "is no UTF-8 (byte 13)" in refusal(path)


# --- a user without a home ----------------------------------------------------------------------


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "WHATSAPPD_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(os, "getuid", lambda: 54321)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_settings_that_need_one_are_named() -> None:
    with pytest.raises(BadConfiguration) as caught:
        load(Sources({}))
    assert [problem["key"] for problem in caught.value.data["problems"]] == ["state_dir", "socket"]
    assert "user 54321 has no home directory" in caught.value.message
    assert "--state-dir or WHATSAPPD_STATE_DIR" in caught.value.message
    assert "--socket or WHATSAPPD_SOCKET" in caught.value.message


@pytest.mark.usefixtures("homeless")
def test_without_a_home_it_works_where_they_are_given(tmp_path: Path) -> None:
    given = {
        "WHATSAPPD_STATE_DIR": str(tmp_path / "state"),
        "WHATSAPPD_SOCKET": str(tmp_path / "socket"),
    }
    assert load(Sources(given)).settings.state.directory == tmp_path / "state"


def test_a_home_that_is_no_path_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    for nonsense in ("", "relative", "."):
        monkeypatch.setenv("HOME", nonsense)
        assert paths.home() is None
    monkeypatch.setenv("HOME", "/home/x/")
    assert paths.home() == "/home/x"
