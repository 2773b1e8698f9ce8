"""Text is UTF-8 at every door, whatever the locale; and what a daemon answers commands nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted_daemon import Daemon, event, session

ROOT = Path(__file__).parents[3]
TEXT = "Grüße 👍"
SUBSCRIBED = {"subscription": 1, "after": 0, "last_seq": 0, "gap": None}
ID = "0123456789abcdef"
ROW = {"id": ID, "state": "queued", "company": "acme", "key": "k", "reason": None}

#: Ways to tell Python that text is something else.
ENVIRONMENTS = {
    "C": {"LC_ALL": "C"},
    "no UTF-8 mode": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "PYTHONIOENCODING": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user whose locale is not UTF-8."""
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    directory = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", directory / "de_DE.ISO-8859-1"],
        check=False,
        capture_output=True,
    )
    if made.returncode > 1:  # 1: with warnings
        pytest.skip("localedef lacks its sources")
    return {"LOCPATH": str(directory), "LC_ALL": "de_DE.ISO-8859-1"}


def run(
    daemon: Daemon, environment: dict[str, str], *arguments: str | bytes, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "whatsappctl", "--socket", daemon.path, *arguments]
    return daemon.run(
        lambda: subprocess.run(
            command,
            check=False,
            input=stdin,
            capture_output=True,
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if name[:3] != "LC_"},
                "PYTHONPATH": str(ROOT),
                **environment,
            },
        )
    )


def check_text(daemon: Daemon, environment: dict[str, str], tmp_path: Path) -> None:
    daemon.answers = {"message.send": ROW, "message.get": ROW | {"text": TEXT}}
    assert run(daemon, environment, "send", "acme", "+15550100", TEXT.encode()).returncode == 0
    run(daemon, environment, "send", "acme", "+15550100", stdin=b"\xef\xbb\xbf" + TEXT.encode())
    texts = [params.text for params in daemon.called("message.send")]
    assert texts == [TEXT, TEXT]
    answer = run(daemon, environment, "call", "message.get", b'{"id": "0123456789abcdef"}')
    assert json.loads(answer.stdout)["text"] == TEXT
    assert TEXT.encode() in answer.stdout
    file = tmp_path / "Grüße.prom"
    daemon.answers = {"session.qr": {"qr": "x", "since_ms": 1, "expires_ms": 2},
                      "events.subscribe": SUBSCRIBED}  # fmt: skip
    made = run(daemon, environment, "qr", "acme", "--png", os.fsencode(file))
    assert (made.returncode, file.exists()) == (0, True), made.stderr
    assert str(file).encode() in made.stderr


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_text_is_utf8_whatever_the_environment_says(daemon: Daemon, tmp_path: Path, name: str):
    check_text(daemon, ENVIRONMENTS[name], tmp_path)


def test_text_is_utf8_under_a_locale_that_is_not(
    daemon: Daemon, tmp_path: Path, latin: dict[str, str]
):
    check_text(daemon, latin, tmp_path)


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C"}, ENVIRONMENTS["no UTF-8 mode"]])
def test_what_is_no_utf8_is_refused_where_it_stands(daemon: Daemon, environment: dict[str, str]):
    ended = run(daemon, environment, "send", "acme", "+15550100", b"caf\xe9")
    assert (ended.returncode, ended.stderr) == (
        2, b"whatsappctl: argument 6 (caf\\xe9) is no UTF-8 text\n",
    )  # fmt: skip
    ended = run(daemon, environment, "send", "acme", "+15550100", stdin=b"one\ntwo \xe9\n")
    assert ended.returncode == 2
    assert b"stdin is no UTF-8 text: byte 0xe9 in line 2" in ended.stderr
    assert daemon.calls == []


def test_a_batch_in_utf16_says_so(daemon: Daemon, tmp_path: Path):
    daemon.answers = {"session.list": {"sessions": [session()]}}
    file = tmp_path / "lines"
    file.write_bytes('{"to": "+15550100", "text": "x"}\n'.encode("utf-16"))
    ended = daemon.invoke("send", "acme", "--batch", str(file))
    assert ended.exit_code == 2
    assert "line 1: no UTF-8 text but UTF-16: save the file as UTF-8" in ended.stderr


# --- a daemon, or whoever plays it, whose every word is hostile -----------------------------------

HOSTILE = "x\x1b]0;pwned\x07\x1b[2J\x9b2J\u202ey\x85z\u2028\u2066\r\nrm -rf"
STATUS = session() | dict.fromkeys(
    ("company", "state", "cause", "jid", "lid", "push_name", "last_error"), HOSTILE
)
DAEMON = {
    "version": HOSTILE, "pid": 1, "started_ms": 1, "connections": 1, "mode": HOSTILE,
    "fork_server": {"problem": HOSTILE}, "companies": [STATUS], "state_dir": HOSTILE,
}  # fmt: skip
FINDING = {"name": HOSTILE, "ok": False, "detail": HOSTILE, "remedy": HOSTILE}
MESSAGE = {
    **dict.fromkeys(("lost_attempts", "attempts", "created_ms", "updated_ms", "not_before_ms"), 1),
    **dict.fromkeys(("expires_ms", "handed_ms", "sent_ms"), 1),
    **dict.fromkeys(("id", "company", "chat", "state", "reason", "key", "on_uncertain"), HOSTILE),
    "message_id": HOSTILE, "text": "", "content": {"kind": HOSTILE},
}  # fmt: skip
HOOK = {
    **dict.fromkeys(("id", "url", "description", "state", "last_error", "secret"), HOSTILE),
    "companies": [HOSTILE], "types": [HOSTILE], "allow_private": True, "delivered": 1,
    "last_success_ms": 1, "failures": 1, "behind": 1, "dead_letters": 1, "gone": 1,
    "paused_since_ms": 1, "failing_since_ms": None,
}  # fmt: skip
LETTER = {
    **dict.fromkeys(("id", "seq", "time_ms", "attempts"), 1),
    **dict.fromkeys(("company", "type", "reason"), HOSTILE), "resend": False,
}  # fmt: skip
KEY = {"id": HOSTILE, "scope": HOSTILE, "companies": [HOSTILE], "created_ms": 1,
       "last_used_ms": 1, "name": HOSTILE, "key": HOSTILE}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "daemon.hello": {"version": HOSTILE, "pid": os.getpid(), "mode": HOSTILE, "methods": []},
    "daemon.status": DAEMON,
    "daemon.health": {
        "healthy": False,
        "checks": [FINDING],
        "sessions": {HOSTILE: {"ok": False, "detail": HOSTILE, "remedy": HOSTILE}},
    },
    "daemon.configure": {HOSTILE: HOSTILE},
    "daemon.limits": {
        "bounds": [
            {
                "name": HOSTILE,
                "what": HOSTILE,
                "held": 1,
                "each": 1,
                "all": 1,
                "kept": 1,
                "refused": 1,
                "holders": [{"holder": HOSTILE, "held": 1}],
            },
        ],
    },
    "session.list": {"sessions": [STATUS]},
    "session.status": STATUS,
    "session.start": STATUS,
    "session.stop": STATUS,
    "session.restart": STATUS,
    "session.logout": STATUS,
    "session.remove": STATUS,
    "session.qr": {"qr": HOSTILE, "since_ms": 1, "expires_ms": 2},
    "session.configure": {"limits": {HOSTILE: HOSTILE}},
    "message.send": MESSAGE,
    "message.get": MESSAGE,
    "message.list": {"rows": [MESSAGE], "next": HOSTILE},
    "message.cancel": MESSAGE,
    "message.resolve": MESSAGE,
    "events.subscribe": SUBSCRIBED,
    "events.forget": {},
    "key.create": KEY,
    "key.list": {"keys": [KEY]},
    "key.revoke": KEY,
    "webhook.create": HOOK,
    "webhook.list": {"webhooks": [HOOK], "delivering": True},
    "webhook.get": HOOK,
    "webhook.update": HOOK,
    "webhook.remove": HOOK,
    "webhook.test": {"ok": False, "error": HOSTILE, "status": 1, "took_ms": 1},
    "webhook.dead_letters": {"dead_letters": [LETTER], "next": 5},
    "webhook.resend": {"count": 1},
    "sandbox.info": {HOSTILE: HOSTILE},
    "sandbox.stats": {"nested": {HOSTILE: [HOSTILE]}},
}
COMMANDS = [
    ("status",), ("status", "acme"), ("list",), ("health",), ("doctor",), ("configure",),
    ("start", "acme", "--no-wait"), ("stop", "acme"), ("restart", "acme"), ("logout", "acme"),
    ("remove", "acme", "--yes"), ("qr", "acme", "--text"), ("limits", "acme"), ("limits",),
    ("wait", "acme", "--timeout", "0"), ("start", HOSTILE),
    ("send", "acme", "+15550100", "Hello"), ("events", "--count", "4"),
    ("events", "forget", HOSTILE),
    ("outbox", "list"), ("outbox", "show", ID), ("outbox", "cancel", ID, HOSTILE),
    ("outbox", "resolve", ID, "--as", "sent"),
    ("keys", "create", "x"), ("keys", "list"), ("keys", "revoke", "x"),
    ("webhooks", "create", "https://x.example"), ("webhooks", "list"), ("webhooks", "show", "x"),
    ("webhooks", "update", "x", "--rotate-secret"), ("webhooks", "remove", HOSTILE),
    ("webhooks", "test", HOSTILE), ("webhooks", "dead", "x"), ("webhooks", "resend", "x"),
    ("call", "daemon.status"), ("sandbox", "info"), ("sandbox", "stats"),
]  # fmt: skip
#: Those that click refuses, which quotes them.
WRONG = [("sandbox", "fault", "drop", HOSTILE), (HOSTILE,), ("status", f"--{HOSTILE}")]


@pytest.fixture
def hostile(daemon: Daemon) -> Daemon:
    daemon.answers = ANSWERS
    daemon.events = [
        event(1, "message.received", sender=HOSTILE, text=HOSTILE, content=HOSTILE),
        event(1, "message.received", sender={"jid": HOSTILE}, content={"kind": HOSTILE}),
        event(1, "message.received", sender={"jid": 5}, content={"kind": "x", "type": HOSTILE}),
        event(2, "outbox.state", id=HOSTILE, chat=HOSTILE, state=HOSTILE, reason=HOSTILE),
        event(3, "session.state", **{"from": HOSTILE, "state": HOSTILE, "cause": HOSTILE}),
        event(4, HOSTILE, **{HOSTILE: [HOSTILE]}),
    ]
    return daemon


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words)[:20].strip())
def test_nothing_that_is_printed_commands_a_terminal_or_breaks_a_line(
    hostile: Daemon, command: tuple[str, ...], as_json: bool
):
    result = hostile.invoke(*command, *(["--json"] if as_json else []))
    check_printed(result.stdout + result.stderr)
    if as_json:
        for line in result.stdout.splitlines():
            json.loads(line)


@pytest.mark.parametrize("command", WRONG)
def test_what_is_wrong_on_the_command_line_is_not_quoted_raw(
    hostile: Daemon, command: tuple[str, ...]
):
    ended = run(hostile, {}, *command)
    assert ended.returncode == 2
    check_printed(ended.stderr.decode())


def check_printed(text: str) -> None:
    assert text
    assert text.replace("\n", "").isprintable(), text
    assert not [line for line in text.splitlines() if line.startswith("rm -rf")], text
