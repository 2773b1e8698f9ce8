"""Each verb: what it asks, what it prints where, and how it ends."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from scripted_daemon import Daemon, event, session

from whatsappctl.cli import SECTIONS, cli
from whatsappd.errors import (
    Denied,
    NotConnected,
    RateLimited,
    UnknownCompany,
    UnknownMethod,
    WrongState,
)

SUBSCRIBED = {"subscription": 1, "after": 0, "last_seq": 0, "gap": None}
STATUS = {
    "version": "0.1.0",
    "pid": 5,
    "mode": "real",
    "state_dir": "/s",
    "socket": "/s/s",
    "started_ms": 1,
    "connections": 2,
    "last_seq": 7,
    "fork_server": {"pid": 6, "restarts": 0, "problem": None},
    "sandbox": None,
    "companies": [session(), session("globex", "backing_off", cause="no such host", jid=None)],
}
VERBS = [verb for verbs in SECTIONS.values() for verb in verbs]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_takes_the_common_options(verb: str):
    result = CliRunner().invoke(cli, [verb, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "--socket" in result.stdout
    assert result.stdout.count("\n") > 8


def test_help_names_every_verb_and_the_exit_codes():
    result = CliRunner().invoke(cli, ["--help"])
    assert all(verb in result.stdout for verb in VERBS)
    assert "whatsappd does not run" in result.stdout


def test_a_misspelt_verb_is_guessed():
    result = CliRunner().invoke(cli, ["statsu"])
    assert result.exit_code == 2
    assert "Did you mean status?" in result.stderr


def test_status(daemon: Daemon):
    daemon.answers = {"daemon.status": STATUS}
    result = daemon.invoke("status")
    assert result.exit_code == 0
    assert "whatsappd 0.1.0  pid 5" in result.stdout
    assert "no such host" in result.stdout
    assert "SANDBOX" not in result.stdout


def test_status_says_when_it_is_a_sandbox_and_when_there_are_no_companies(daemon: Daemon):
    daemon.answers = {"daemon.status": {**STATUS, "mode": "sandbox", "companies": []}}
    result = daemon.invoke("status")
    assert "SANDBOX" in result.stdout
    assert "no companies yet: `whatsappctl start COMPANY`" in result.stdout


def test_status_of_one_company(daemon: Daemon):
    daemon.answers = {"session.status": session(push_name="evil\x1b[2Jname")}
    result = daemon.invoke("status", "acme")
    assert "+15550100" in result.stdout
    assert "\x1b" not in result.stdout
    assert "evil\\x1b[2Jname" in result.stdout


@pytest.mark.parametrize("arguments", [["--json", "status"], ["status", "--json"]])
def test_json_may_stand_before_the_verb_or_behind_it(daemon: Daemon, arguments: list[str]):
    daemon.answers = {"daemon.status": STATUS}
    assert json.loads(daemon.invoke(*arguments).stdout) == STATUS


def test_list(daemon: Daemon):
    daemon.answers = {"session.list": {"sessions": STATUS["companies"]}}
    lines = daemon.invoke("list").stdout.splitlines()
    assert lines[0].split() == ["COMPANY", "STATE", "FOR", "NUMBER"]
    assert lines[1].split()[:2] == ["acme", "connected"]
    assert lines[2].split()[:2] == ["globex", "backing_off"]


def test_list_by_state(daemon: Daemon):
    daemon.answers = {"session.list": {"sessions": STATUS["companies"]}}
    found = json.loads(daemon.invoke("list", "--state", "backing_off", "--json").stdout)
    assert [status["company"] for status in found] == ["globex"]


@pytest.mark.parametrize("verb", ["stop", "restart", "logout"])
def test_verbs_of_one_session(daemon: Daemon, verb: str):
    daemon.answers = {f"session.{verb}": session(state="stopped", cause="on request")}
    result = daemon.invoke(verb, "acme")
    assert result.stdout == "acme: stopped (on request)\n"
    assert daemon.called(f"session.{verb}")[0].company == "acme"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotConnected("not connected"), 4),
        (RateLimited("too many", retry_after_ms=5), 5),
        (WrongState("wrong"), 7),
        (UnknownCompany("no acme"), 9),
        (Denied("not you"), 10),
        (ValueError("a defect"), 1),
    ],
)
def test_errors_are_one_line_on_stderr_and_an_exit_code(daemon: Daemon, error, code: int):
    daemon.answers = {"session.stop": error}
    result = daemon.invoke("stop", "acme")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("whatsappctl: ")
    assert result.stderr.count("\n") == 1


def test_errors_as_json(daemon: Daemon):
    daemon.answers = {"session.stop": UnknownCompany("no acme", company="acme")}
    result = daemon.invoke("stop", "acme", "--json")
    assert json.loads(result.stderr)["error"]["name"] == "unknown_company"


@pytest.mark.parametrize(
    "arguments",
    [["status", "--json"], ["--json", "status"], ["sandbox", "stats", "--json"]],
)
def test_errors_are_json_wherever_the_option_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
):
    monkeypatch.setenv("WHATSAPPD_SOCKET", str(tmp_path / "none"))
    result = CliRunner().invoke(cli, arguments)
    assert json.loads(result.stderr)["error"]["name"] == "unreachable"


def test_no_daemon_is_one_line_that_says_how_to_start_it(tmp_path: Path):
    result = CliRunner().invoke(cli, ["status", "--socket", str(tmp_path / "none")])
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "whatsappd run" in result.stderr


def test_start_shows_states_and_codes_as_lines_when_piped(daemon: Daemon):
    daemon.answers = {"session.start": session(state="starting", jid=None) | {"subscription": 1}}
    daemon.events = [
        event(1, state="pairing", cause="waiting"),
        event(2, "session.qr", qr="https://wa.me/1", expires_ms=5),
        event(3, "session.qr", qr="https://wa.me/2", expires_ms=6),
        event(4, state="connected", cause="connected", jid="15550100@s.whatsapp.net"),
    ]
    result = daemon.invoke("start", "acme")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line.get("state") or line["qr"] for line in lines] == [
        "starting", "pairing", "https://wa.me/1", "https://wa.me/2", "connected",
    ]  # fmt: skip
    assert daemon.called("session.start")[0].watch is True


def test_start_of_a_connected_session_ends_at_once(daemon: Daemon):
    daemon.answers = {"session.start": session() | {"subscription": 1}}
    assert daemon.invoke("start", "acme").exit_code == 0


@pytest.mark.parametrize(
    ("state", "code"),
    [("logged_out", 4), ("backing_off", 4), ("banned", 4), ("failed", 4), ("conflict", 7)],
)
def test_start_ends_when_it_cannot_go_on(daemon: Daemon, state: str, code: int):
    daemon.answers = {"session.start": session(state="starting") | {"subscription": 1}}
    daemon.events = [event(1, state=state, cause="no such host", next_try_ms=None)]
    result = daemon.invoke("start", "acme")
    assert result.exit_code == code
    assert "no such host" in result.stderr


def test_start_gives_up_waiting(daemon: Daemon):
    daemon.answers = {"session.start": session(state="starting") | {"subscription": 1}}
    result = daemon.invoke("start", "acme", "--timeout", "0.05")
    assert result.exit_code == 6
    assert "goes on trying" in result.stderr


def test_start_says_that_another_number_is_meant(daemon: Daemon):
    daemon.answers = {"session.start": session()}
    assert daemon.invoke("start", "acme", "--no-wait", "--new-account").exit_code == 0
    sent = daemon.invoke("start", "acme", "--no-wait", "--new-account", "--queued", "send")
    assert sent.exit_code == 0
    first, second = daemon.called("session.start")
    assert (first.new_account, first.queued) == (True, "cancel")
    assert (second.new_account, second.queued) == (True, "send")
    assert daemon.invoke("start", "acme", "--queued", "lose").exit_code == 2


def test_start_without_waiting(daemon: Daemon):
    daemon.answers = {"session.start": session(state="starting")}
    result = daemon.invoke("start", "acme", "--no-wait", "--take-over")
    assert result.stdout == "acme: starting\n"
    [params] = daemon.called("session.start")
    assert (params.watch, params.take_over) == (False, True)


def test_wait(daemon: Daemon):
    daemon.answers = {"events.subscribe": SUBSCRIBED, "session.status": session()}
    result = daemon.invoke("wait", "acme")
    assert (result.exit_code, result.stdout) == (0, "")
    result = daemon.invoke("wait", "acme", "--for", "stopped", "--timeout", "0.05")
    assert result.exit_code == 6
    assert "but connected" in result.stderr


def test_wait_for_the_daemon_itself(daemon: Daemon):
    hello = {"version": "0.1.0", "mode": "sandbox"}
    daemon.answers = {"daemon.hello": hello}
    waiting = ["--socket", daemon.path, "wait", "--timeout"]
    in_vain = CliRunner().invoke(cli, [*waiting, "0.05"])
    assert in_vain.exit_code == 6
    assert "not running" in in_vain.stderr
    with ThreadPoolExecutor() as threads:  # it begins before there is a daemon
        waits = threads.submit(CliRunner().invoke, cli, [*waiting, "20", "--json"])
        told = daemon.run(lambda: waits.result(20))
    assert (told.exit_code, json.loads(told.stdout)) == (0, hello)
    assert CliRunner().invoke(cli, ["wait", "--for", "connected"]).exit_code == 2


def test_qr_as_text_png_and_json(daemon: Daemon, tmp_path: Path):
    code = {"company": "acme", "qr": "https://wa.me/settings#1", "since_ms": 1, "expires_ms": 2}
    daemon.answers = {"events.subscribe": SUBSCRIBED, "session.qr": code}
    assert daemon.invoke("qr", "acme").stdout == "https://wa.me/settings#1\n"
    assert json.loads(daemon.invoke("qr", "acme", "--json").stdout) == code
    image = tmp_path / "qr.png"
    assert daemon.invoke("qr", "acme", "--png", str(image)).exit_code == 0
    assert image.read_bytes().startswith(b"\x89PNG")
    assert image.stat().st_mode & 0o777 == 0o600  # whoever reads the code can link a phone
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "elsewhere.png")
    refused = daemon.invoke("qr", "acme", "--png", str(link))
    assert (refused.exit_code, refused.stderr) == (
        1, f"whatsappctl: {link}: is a link, which is not followed; name a file\n",
    )  # fmt: skip
    assert not (tmp_path / "elsewhere.png").exists()
    assert daemon.invoke("qr", "acme", "--png", "-").stdout_bytes.startswith(b"\x89PNG")


def test_qr_waits_for_a_session_that_is_just_starting(daemon: Daemon):
    code = {"company": "acme", "qr": "https://wa.me/1", "since_ms": 1, "expires_ms": 2}
    daemon.answers = {
        "events.subscribe": SUBSCRIBED,
        "session.qr": [WrongState("acme shows no QR code: it is starting"), code],
    }
    daemon.events = [event(1, "session.qr", qr="https://wa.me/1")]
    assert daemon.invoke("qr", "acme").stdout == "https://wa.me/1\n"


HELLO = {"kind": "text", "text": "Hello"}
ACME = {"jid": "15550100@s.whatsapp.net", "lid": "1@lid", "phone": "+15550100", "name": "Acme"}
GLOBEX = {"jid": "15550200@s.whatsapp.net", "lid": "9@lid", "phone": "+15550200", "name": None}


def test_events_for_people(daemon: Daemon):
    daemon.answers = {"events.subscribe": {**SUBSCRIBED, "gap": 7}}
    daemon.events = [
        event(7, "message.received", sender=GLOBEX, text="hi\x1b[2J", content=HELLO),
        event(8, "outbox.state", id="00aa", chat="15550200@s.whatsapp.net", state="sent"),
        event(9, "message.received", sender=ACME, chat=GLOBEX, from_me=True, origin="phone",
              text="own", content=HELLO),
        event(10, "message.received", sender=ACME, chat=GLOBEX, from_me=True, origin="device",
              text="", content={"kind": "unsupported", "type": "image"}),
    ]  # fmt: skip
    result = daemon.invoke("events", "--count", "4")
    assert "message.received  from the phone to +15550200: own" in result.stdout
    assert "message.received  from another device to +15550200: [image]" in result.stdout
    assert "+15550200: hi\\x1b[2J" in result.stdout
    assert "00aa to +15550200: sent" in result.stdout
    assert "seq 7" in result.stderr


def test_events_as_ndjson_with_a_consumer_are_acknowledged(daemon: Daemon):
    daemon.answers = {"events.subscribe": SUBSCRIBED, "events.ack": {"cursor": 2}}
    daemon.events = [event(1, raw=b"\x00\xff"), event(2)]
    result = daemon.invoke("events", "--json", "--consumer", "crm", "--count", "2",
                           "--company", "acme", "--type", "session.state")  # fmt: skip
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["seq"] for line in lines] == [1, 2]
    assert lines[0]["data"]["raw"] == "AP8="
    assert daemon.called("events.ack")[-1].seq == 2
    [asked] = daemon.called("events.subscribe")
    assert (asked.companies, asked.types) == (["acme"], ["session.state"])


def pages(*seqs: int, last: int):
    """`events.read` of a log whose filter lets `seqs` through."""

    def answer(params):
        found = [seq for seq in seqs if seq > params.after][: params.limit]
        end = found[-1] if len(found) == params.limit else last
        events = [event(seq) for seq in found]
        return {"events": events, "next": end, "last_seq": last, "gap": None}

    return answer


def test_events_that_are_not_followed_end_with_the_newest(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("whatsappctl.commands.events.PAGE", 2)
    daemon.answers = {"events.read": pages(1, 3, 4, 8, 9, last=10)}

    def seqs(*arguments: str) -> list[int]:
        result = daemon.invoke("events", "--json", "--no-follow", *arguments)
        assert result.exit_code == 0
        return [json.loads(line)["seq"] for line in result.stdout.splitlines()]

    assert seqs() == [1, 3, 4, 8, 9]
    assert seqs("--after", "4") == [8, 9]
    assert seqs("--count", "3", "--type", "alert", "--company", "acme") == [1, 3, 4]
    asked = daemon.called("events.read")[-1]
    assert (asked.limit, asked.types, asked.companies) == (1, ["alert"], ["acme"])


def test_a_consumer_need_not_follow(daemon: Daemon):
    daemon.answers = {
        "events.subscribe": {**SUBSCRIBED, "after": 3},
        "events.read": pages(1, 4, 8, last=10),
        "events.ack": {"cursor": 10},
    }
    result = daemon.invoke("events", "--json", "--no-follow", "--consumer", "crm")
    assert [json.loads(line)["seq"] for line in result.stdout.splitlines()] == [4, 8]
    [acknowledged] = daemon.called("events.ack")
    assert (acknowledged.consumer, acknowledged.seq) == ("crm", 10)


def test_a_consumer_is_forgotten(daemon: Daemon):
    daemon.answers = {"events.forget": {"consumer": "crm"}}
    result = daemon.invoke("events", "forget", "crm")
    assert (result.exit_code, result.stdout) == (0, "")
    assert [asked.consumer for asked in daemon.called("events.forget")] == ["crm"]
    result = daemon.invoke("--json", "events", "forget", "crm")
    assert json.loads(result.stdout) == {"consumer": "crm"}
    assert daemon.called("events.subscribe") == []
    for arguments in (["--consumer", "crm", "forget", "crm"], ["forgt", "crm"], ["forget"]):
        assert daemon.invoke("events", *arguments).exit_code == 2
    assert len(daemon.called("events.forget")) == 2


def test_events_end_with_a_clear_word_when_the_daemon_stops(daemon: Daemon):
    daemon.answers = {"events.subscribe": SUBSCRIBED}
    daemon.events = [event(1)]
    daemon.then = daemon.stop
    result = daemon.invoke("events")
    assert result.exit_code == 3
    assert "stopping" in result.stderr


def test_remove_asks_first(daemon: Daemon):
    daemon.answers = {"session.remove": {"company": "acme", "removed": True}}
    result = daemon.invoke("remove", "acme", input="n\n")
    assert result.exit_code == 1
    assert daemon.calls == []
    assert daemon.invoke("remove", "acme", input="y\n").stdout == "acme: removed\n"
    assert daemon.invoke("remove", "acme", "--yes", "--force").exit_code == 0
    assert daemon.called("session.remove")[-1].force is True


def test_call(daemon: Daemon):
    daemon.answers = {"session.status": session()}
    result = daemon.invoke("call", "session.status", '{"company": "acme"}')
    assert json.loads(result.stdout)["company"] == "acme"
    assert daemon.invoke("call", "session.status", "-", input='{"company": "acme"}').exit_code == 0
    result = daemon.invoke("call", "session.status", '{"compny": "acme"}')
    assert result.exit_code == 2
    assert "compny: there is no such parameter (accepted: company)" in result.stderr
    assert daemon.invoke("call", "session.status", "{").exit_code == 2
    assert daemon.invoke("call", "session.status", "[1]").exit_code == 2


def test_sandbox_scans_what_a_company_shows(daemon: Daemon):
    code = {"company": "acme", "qr": "https://wa.me/1", "since_ms": 1, "expires_ms": 2}
    daemon.answers = {
        "events.subscribe": SUBSCRIBED,
        "session.qr": code,
        "sandbox.info": {},
        "sandbox.scan": {"jid": "15550100@s.whatsapp.net"},
        "sandbox.fault": {"hit": 1},
    }
    result = daemon.invoke("sandbox", "scan", "acme", "--phone", "+15550100")
    assert result.stdout == "jid: 15550100@s.whatsapp.net\n"
    [params] = daemon.called("sandbox.scan")
    assert (params.qr, params.phone) == ("https://wa.me/1", "+15550100")
    daemon.invoke(
        "sandbox", "fault", "freeze", "phone=+1555", "seconds=1.5", "count=3", "cut=false"
    )
    [params] = daemon.called("sandbox.fault")
    assert (params.phone, params.seconds, params.count, params.cut) == ("+1555", 1.5, 3, False)


@pytest.mark.parametrize("whose", [["--qr", "x"], ["acme"]])
def test_sandbox_commands_explain_themselves_to_a_real_daemon(daemon: Daemon, whose: list[str]):
    daemon.answers = {"daemon.hello": {}}
    result = daemon.invoke("sandbox", "scan", *whose, "--phone", "+15550100")
    assert result.exit_code == UnknownMethod.exit_code
    assert "whatsappd run --sandbox" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str):
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_WHATSAPPCTL_COMPLETE" in result.stdout


def test_the_shell_completes_verbs_and_companies(daemon: Daemon, monkeypatch: pytest.MonkeyPatch):
    daemon.answers = {"session.list": {"sessions": [session("acme"), session("globex")]}}
    monkeypatch.setenv("WHATSAPPD_SOCKET", daemon.path)

    def complete(words: str, count: int):
        environment = {
            "_WHATSAPPCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count),
        }  # fmt: skip
        return daemon.run(
            lambda: CliRunner().invoke(cli, [], prog_name="whatsappctl", env=environment).stdout
        )

    assert complete("whatsappctl st", 1).split() == ["plain,start", "plain,stop", "plain,status"]
    assert complete("whatsappctl stop g", 2).split() == ["plain,globex"]
