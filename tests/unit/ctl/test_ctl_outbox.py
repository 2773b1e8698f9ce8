"""`whatsappctl outbox`, `limits` and `configure`: what they ask, print, and end with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from scripted_daemon import Daemon

from whatsappctl.commands import configure, limits, outbox
from whatsappd.api.declaration import plain
from whatsappd.errors import (
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    InvalidParams,
    UnknownMessage,
    WrongState,
)
from whatsappd.handlers.messages import shown_message
from whatsappd.limits.settings import LIMIT_NAMES, SendLimits
from whatsappd.logs.setup import LEVELS
from whatsappd.model.content import Text
from whatsappd.model.message import OnUncertain, OutboxState, Row
from whatsappd.rules.bounds import CONNECTIONS, STREAMS, Holder, Places, report
from whatsappd.rules.delivery import DECISIONS


def row(number: int, **changes: Any) -> dict[str, Any]:
    made = Row(
        id=f"{number:016x}", company="acme", chat="15550100@s.whatsapp.net",
        content=Text(f"text {number}"),
        key=None, state=OutboxState.QUEUED, reason=None, attempts=0, not_before_ms=0,
        expires_ms=None, on_uncertain=OnUncertain.ASK, message_id=None, created_ms=1000,
        updated_ms=1000, sent_ms=None,
    )  # fmt: skip
    return {**plain(shown_message(made)), **changes}


def paged(count: int):
    def answer(params: Any) -> dict[str, Any]:
        newest = count if params.before is None else int(params.before, 16) - 1
        numbers = range(newest, max(0, newest - params.limit), -1)
        rows = [row(number) for number in numbers]
        return {"rows": rows, "next": rows[-1]["id"] if rows and numbers[-1] > 1 else None}

    return answer


def test_list_shows_the_newest_and_how_to_see_more(daemon: Daemon):
    daemon.answers = {"message.list": paged(70)}
    result = daemon.invoke("outbox", "list")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ID", "COMPANY", "TO", "STATE", "AGE", "TRIES", "TEXT", "REASON"]
    assert lines[1].split()[:4] == [f"{70:016x}", "acme", "+15550100", "queued"]
    assert len(lines) == 51
    assert f"--before {21:016x}" in result.stderr


def test_list_asks_page_by_page_for_as_many_as_wanted(daemon: Daemon):
    daemon.answers = {"message.list": paged(1000)}
    result = daemon.invoke("outbox", "list", "acme", "--limit", "450", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [int(row["id"], 16) for row in rows] == list(range(1000, 550, -1))
    assert [params.limit for params in daemon.called("message.list")] == [200, 200, 50]
    result = daemon.invoke("outbox", "list", "--all", "--json")
    assert result.stdout.count("\n") == 1000
    assert result.stderr == ""


def test_list_filters_and_says_when_there_is_nothing(daemon: Daemon):
    daemon.answers = {"message.list": paged(0)}
    result = daemon.invoke("outbox", "list", "acme", "--state", "uncertain", "--state", "failed")
    assert result.stdout == ""
    assert result.stderr == "no messages that are uncertain or failed\n"
    [params] = daemon.called("message.list")
    assert (params.company, params.states) == ("acme", ["uncertain", "failed"])
    assert daemon.invoke("outbox", "list", "--state", "lost").exit_code == 2


def test_texts_reach_no_terminal_unescaped(daemon: Daemon):
    evil = row(1, text="a\x1b[2J" + "x" * 100, reason="b\x1b[2J")
    daemon.answers = {"message.list": {"rows": [evil], "next": None}, "message.get": evil}
    for arguments in (["list"], ["show", evil["id"]]):
        shown = daemon.invoke("outbox", *arguments).stdout
        assert "\x1b" not in shown
        assert "a\\x1b[2J" in shown
        assert "b\\x1b[2J" in shown


def test_show(daemon: Daemon):
    shown = row(1, state="uncertain", reason="the worker died", text="two\nlines", key="k")
    daemon.answers = {"message.get": shown}
    result = daemon.invoke("outbox", "show", shown["id"])
    assert "reason:        the worker died\n" in result.stdout
    assert result.stdout.endswith("\n\n  two\n  lines\n")
    assert json.loads(daemon.invoke("outbox", "show", shown["id"], "--json").stdout) == shown
    daemon.answers = {"message.get": UnknownMessage("there is no message")}
    assert daemon.invoke("outbox", "show", "x").exit_code == 9


def test_cancel_goes_on_behind_one_that_cannot_be(daemon: Daemon):
    def answer(params: Any) -> Any:
        if params.id == "b":
            return WrongState("a message that is sent cannot be cancelled")
        return row(1, id=params.id, state="cancelled")

    daemon.answers = {"message.cancel": answer}
    result = daemon.invoke("outbox", "cancel", "a", "b", "c")
    assert (result.exit_code, result.stdout) == (7, "a cancelled\nc cancelled\n")
    assert result.stderr == "b: a message that is sent cannot be cancelled\n"
    lines = daemon.invoke("outbox", "cancel", "b", "c", "--json").stdout.splitlines()
    assert json.loads(lines[0])["error"]["name"] == "wrong_state"
    assert json.loads(lines[1])["state"] == "cancelled"


def test_resolve(daemon: Daemon):
    daemon.answers = {"message.resolve": row(1, state="sent")}
    result = daemon.invoke("outbox", "resolve", "a", "--as", "sent")
    assert (result.exit_code, result.stdout) == (0, f"{1:016x} sent\n")
    [params] = daemon.called("message.resolve")
    assert (params.id, params.as_) == ("a", "sent")
    assert daemon.invoke("outbox", "resolve", "a").exit_code == 2
    daemon.answers = {"message.resolve": WrongState("it is sent")}
    assert daemon.invoke("outbox", "resolve", "a", "--as", "sent").exit_code == 7


LIMITS = {"company": "acme", "limits": SendLimits(per_minute=0).as_wire()}


def test_limits_shows_without_changing(daemon: Daemon):
    daemon.answers = {"session.configure": LIMITS}
    result = daemon.invoke("limits", "acme")
    assert result.stdout.splitlines() == [
        "messages a minute:               off",
        "messages a minute to one number: 30",
        "first messages an hour:          20",
        "first messages a day:            100",
    ]
    asked = daemon.called("session.configure")[0]
    assert [type(getattr(asked, name)).__name__ for name in LIMIT_NAMES] == ["UnsetType"] * 4
    assert json.loads(daemon.invoke("limits", "acme", "--json").stdout) == LIMITS


def test_limits_without_a_company_shows_who_holds_what(daemon: Daemon):
    places = Places(CONNECTIONS)
    places.take(Holder("uid:1001"), 7)
    bounds = [places.report(), report(STREAMS, None, [], None)]
    daemon.answers = {"daemon.limits": {"bounds": bounds, "paces": []}}
    result = daemon.invoke("limits")
    assert result.exit_code == 0
    _, connections, streams = result.stdout.splitlines()
    assert connections.split() == ["connections", "7", "512", "2048", "64", "uid", "1001:", "7"]
    assert streams.split()[:2] == ["streams", "-"]
    assert json.loads(daemon.invoke("limits", "--json").stdout)["bounds"] == bounds
    assert daemon.invoke("limits", "--per-minute", "1").exit_code == 2


def test_limits_changes_what_is_given_and_resets_the_others(daemon: Daemon):
    daemon.answers = {"session.configure": LIMITS}
    daemon.invoke("limits", "acme", "--per-minute", "10", "--per-phone", "0")
    daemon.invoke("limits", "acme", "--reset", "--cold-per-day", "5")
    first, second = daemon.called("session.configure")
    assert (first.per_minute, first.per_phone_per_minute) == (10, 0)
    assert type(first.cold_per_hour).__name__ == "UnsetType"
    assert (second.per_minute, second.per_phone_per_minute) == (None, None)
    assert (second.cold_per_hour, second.cold_per_day) == (None, 5)
    assert daemon.invoke("limits", "acme", "--per-minute", "-1").exit_code == 2
    daemon.answers = {"session.configure": InvalidParams("per_minute: is no limit")}
    assert daemon.invoke("limits", "acme", "--per-minute", "99999999").exit_code == 2


def test_configure(daemon: Daemon):
    daemon.answers = {"daemon.configure": {"log_level": "debug"}}
    assert daemon.invoke("configure", "--log-level", "debug").stdout == "log-level: debug\n"
    daemon.invoke("configure")
    assert [params.log_level for params in daemon.called("daemon.configure")] == ["debug", None]


def test_a_backup_that_is_not_what_was_sent_leaves_no_file(daemon: Daemon, tmp_path: Path):
    daemon.answers = {"daemon.backup": {"bytes": 5, "sha256": "00", "companies": []}}
    failed = daemon.invoke("backup", str(tmp_path / "copy.db"))
    assert failed.exit_code == EXIT_UNREACHABLE
    assert "not what the daemon sent" in failed.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_backup_goes_where_its_caller_says(daemon: Daemon, tmp_path: Path):
    empty = hashlib.sha256(b"").hexdigest()
    answer = {"bytes": 0, "sha256": empty, "companies": ["acme"], "left_out": {}}
    daemon.answers = {"daemon.backup": answer}
    file = tmp_path / "copy.tar"
    made = daemon.invoke("backup", "--with-accounts", str(file), "--json")
    assert json.loads(made.stdout) == {"path": str(file), **answer}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [params.accounts for params in daemon.called("daemon.backup")] == [True]
    refused = daemon.invoke("backup", str(file))
    assert "exists already" in refused.stderr
    assert daemon.invoke("backup", "--replace", str(file)).stdout == f"{file}\n"

    # One without an account is a backup, and whoever relies on it is told.
    daemon.answers = {"daemon.backup": {**answer, "left_out": {"globex": "it is damaged"}}}
    partly = daemon.invoke("backup", "--with-accounts", "--replace", str(file))
    assert partly.exit_code == EXIT_FAILED
    assert partly.stdout == f"{file}\n"
    assert partly.stderr == "not in it: the account of globex: it is damaged\n"


def test_the_names_are_those_of_the_daemon():
    assert tuple(map(str, OutboxState)) == outbox.STATES
    assert set(outbox.DECISIONS) == set(DECISIONS)
    assert tuple(limits.NAMES) == LIMIT_NAMES
    assert configure.LOG_LEVELS == LEVELS


@pytest.mark.parametrize("verb", ["list", "show", "cancel", "resolve"])
def test_help_of_each_has_the_common_options(daemon: Daemon, verb: str):
    shown = daemon.invoke("outbox", verb, "--help").stdout
    assert "--json" in shown
    assert "--socket" in shown
