"""`whatsappctl send --batch`: what is checked, what is sent, and what it says."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scripted_daemon import Daemon, session

from whatsappctl import batch_lines, batch_sender
from whatsappctl.cli import cli
from whatsappd.api.messages import MAX_KEY
from whatsappd.errors import KeyConflict, QueueFull, StoreFailed, TooManyRequests
from whatsappd.model.content import MAX_TEXT, Text
from whatsappd.model.message import OnUncertain

NEWER = 1 << 60


class Outbox:
    """Rows by key, as the daemon keeps them; `refuse` may raise for a call."""

    def __init__(self, refuse: Any = None) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.order: list[str] = []
        self.refuse = refuse

    def __call__(self, params: Any) -> Any:
        if self.refuse is not None:
            self.refuse(params)
        if params.key not in self.rows:
            self.order.append(params.text)
        return self.rows.setdefault(
            params.key,
            {
                "id": f"{len(self.rows):04x}",
                "state": "queued",
                "key": params.key,
                "company": params.company,
                "created_ms": NEWER,
            },
        )


@pytest.fixture
def outbox(daemon: Daemon) -> Outbox:
    outbox = Outbox()
    companies = {"sessions": [session("acme"), session("globex")]}
    daemon.answers = {"session.list": companies, "message.send": outbox}
    return outbox


def some_lines(count: int, **fields: Any) -> str:
    return "".join(
        json.dumps({"to": f"+1555{number:07}", "text": f"text {number}", **fields}) + "\n"
        for number in range(count)
    )


def test_every_line_is_sent_once_and_the_summary_says_so(daemon: Daemon, outbox: Outbox):
    result = daemon.invoke("send", "acme", "--batch", "-", input=some_lines(300))
    assert (result.exit_code, result.stdout) == (0, "300 lines: 300 accepted\n")
    assert result.stderr == ""
    assert sorted(outbox.order) == sorted(f"text {number}" for number in range(300))


def test_lines_name_all_that_a_message_can_have(daemon: Daemon, outbox: Outbox):
    line = {
        "company": "globex", "to": "+1 (555) 010-0200", "text": "Grüße", "key": "k",
        "ttl": 1.5, "on_uncertain": "resend",
    }  # fmt: skip
    text = "\ufeff" + json.dumps(line) + "\n\n  \n" + json.dumps({"to": "15550100", "text": "x"})
    arguments = ("send", "acme", "--batch", "-", "--ttl", "60", "--key-prefix", "may-")
    assert daemon.invoke(*arguments, input=text).exit_code == 0
    first, second = sorted(daemon.called("message.send"), key=lambda params: params.company)[::-1]
    assert (first.company, first.to, first.text) == (
        "globex",
        "15550100200@s.whatsapp.net",
        "Grüße",
    )
    assert (first.key, first.ttl_ms, first.on_uncertain) == ("may-k", 1500, OnUncertain.RESEND)
    assert (second.company, second.ttl_ms) == ("acme", 60_000)
    assert second.key.startswith("may-batch-")


BAD = {
    '{"to": "+15550100"}': "text: must be",
    '{"to": "nobody", "text": "x"}': "to: 'nobody' is no phone number",
    '{"to": 15550100, "text": "x"}': "to: must be a string",
    '{"to": "+15550100", "text": ""}': "text: must be",
    '{"to": "+15550100", "text": "\\ud800"}': "text: must be",
    '{"to": "+15550100", "text": "x", "content": {"kind": "text", "text": "x"}}': "text, content:",
    '{"to": "+15550100", "content": "x"}': "content: must be an object",
    '{"to": "+15550100", "content": {"text": "x"}}': "content.kind: is missing (accepted: text",
    '{"to": "+15550100", "content": {"kind": "smell"}}': "content.kind: 'smell' cannot be sent",
    '{"to": "+15550100", "content": {"kind": "text", "text": ""}}': "content.text: ",
    '{"to": "+15550100", "content": {"kind": "text", "text": NaN}}': "content.text: ",
    '{"to": "+15550100", "content": {"kind": "text", "text": "\\ud800"}}': "content: a string",
    '{"to": "+15550100", "content": {"kind": "text", "text": "x", "url": "y"}}': "content: ",
    '{"to": "+15550100", "content": ' + "[" * 300 + "]" * 300 + "}": "content: must be an object",
    '{"to": "+15550100", "text": "x", "tll": 5}': "'tll': there is no such field (accepted:",
    '{"to": "+15550100", "text": "x", "ttl": 0}': "ttl: must be",
    '{"to": "+15550100", "text": "x", "ttl": NaN}': "ttl: must be",
    '{"to": "+15550100", "text": "x", "ttl": true}': "ttl: must be",
    '{"to": "+15550100", "text": "x", "ttl": 1e300}': "ttl: must be",
    '{"to": "+15550100", "text": "x", "key": 5}': "key: must be",
    '{"to": "+15550100", "text": "x", "on_uncertain": "no"}': "on_uncertain: must be one of",
    '{"to": "+15550100", "text": "x", "on_uncertain": []}': "on_uncertain: must be one of",
    '{"company": "initech", "to": "+15550100", "text": "x"}': "there is no initech",
    '{"company": "../x", "to": "+15550100", "text": "x"}': "is no company id",
    "[1]": "no JSON object",
    "[" * 100_000: "no JSON",
    "{": "no JSON",
    '"' + "x" * batch_lines.MAX_LINE + '"': "exceeds",
}


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_sent(daemon: Daemon, outbox: Outbox):
    text = some_lines(1) + "\n".join(BAD) + "\n" + some_lines(1)
    result = daemon.invoke("send", "acme", "--batch", "-", input=text)
    assert result.exit_code == 2
    told = result.stderr.splitlines()
    for number, (line, problem) in enumerate(zip(told, BAD.values(), strict=False), 2):
        assert line.startswith(f"line {number}: "), line
        assert problem in line
    assert told[-1].startswith(f"whatsappctl: nothing was sent: {len(BAD)} of {len(BAD) + 2} lines")
    assert daemon.called("message.send") == []


def test_a_line_tells_all_its_problems_and_needs_a_company(daemon: Daemon, outbox: Outbox):
    result = daemon.invoke("send", "--batch", "-", "--json", input='{"to": "x", "txt": "y"}')
    told = json.loads(result.stdout)
    assert told["line"] == 1
    assert [problem.split(":")[0] for problem in told["error"]["data"]["problems"]] == [
        "'txt'", "company", "to", "text",
    ]  # fmt: skip


def test_bytes_that_are_no_utf8_are_a_bad_line(daemon: Daemon, outbox: Outbox, tmp_path: Path):
    file = tmp_path / "lines"
    file.write_bytes(b'{"to": "+15550100", "text": "\xff\xfe"}\n')
    result = daemon.invoke("send", "acme", "--batch", str(file))
    assert "line 1: no UTF-8 text: byte 0xff at its byte 30" in result.stderr


def test_the_good_lines_can_be_sent_alone(daemon: Daemon, outbox: Outbox):
    text = some_lines(2) + "{\n" + some_lines(1, key="mine")
    result = daemon.invoke("send", "acme", "--batch", "-", "--skip-bad", input=text)
    assert (result.exit_code, result.stdout) == (1, "4 lines: 3 accepted, 1 bad\n")


def test_the_same_lines_again_send_nothing_even_mended_and_moved(daemon: Daemon, outbox: Outbox):
    first = some_lines(20)
    daemon.invoke("send", "acme", "--batch", "-", input=first)
    for row in outbox.rows.values():
        row["created_ms"] = 1
    again = '{"to": "+15550999", "text": "new"}\n' + "".join(reversed(first.splitlines(True)))
    result = daemon.invoke("send", "acme", "--batch", "-", input=again)
    assert result.stdout == "21 lines: 1 accepted, 20 accepted before\n"
    result = daemon.invoke("send", "acme", "--batch", "-", "--key-prefix", "b", input=again)
    assert result.stdout == "21 lines: 21 accepted\n"


def test_a_text_is_the_same_message_in_both_forms(daemon: Daemon, outbox: Outbox):
    short = json.dumps({"to": "+15550100", "text": "Grüße"}) + "\n"
    long = json.dumps({"to": "+15550100", "content": {"kind": "text", "text": "Grüße"}}) + "\n"
    for text in (short, long):
        assert daemon.invoke("send", "acme", "--batch", "-", input=text).exit_code == 0
    [first, second] = daemon.called("message.send")
    assert first.key == second.key
    assert (first.text, second.content) == ("Grüße", Text("Grüße"))


def test_equal_lines_are_messages_of_their_own(daemon: Daemon, outbox: Outbox):
    line = '{"to": "+15550100", "text": "ping"}\n{"to": "15550100@c.us", "text": "ping"}\n'
    daemon.invoke("send", "acme", "--batch", "-", input=line * 2)
    assert len(outbox.rows) == 4
    daemon.invoke("send", "acme", "--batch", "-", input=line * 2)
    assert len(outbox.rows) == 4


def test_messages_of_one_chat_keep_their_order(daemon: Daemon, outbox: Outbox):
    text = "".join(
        json.dumps({"to": f"+1555010{chat}", "text": f"{chat} {number:03}"}) + "\n"
        for number in range(100)
        for chat in range(3)
    )
    assert daemon.invoke("send", "acme", "--batch", "-", input=text).exit_code == 0
    assert len(outbox.order) == 300
    for chat in "012":
        mine = [text for text in outbox.order if text.startswith(chat)]
        assert mine == sorted(mine)


@pytest.mark.parametrize("error", [QueueFull("2 wait, the limit is 2"), TooManyRequests("128")])
def test_refusals_for_now_are_waited_out_in_order(
    daemon: Daemon, outbox: Outbox, error: Exception, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch_sender, "SHORTEST_PAUSE", 0.001)
    room = [5]

    def refuse(params: Any) -> None:
        if room[0] == 0:
            room[0] = 3
            raise error
        room[0] -= 1

    outbox.refuse = refuse
    text = "".join(f'{{"to": "+15550100", "text": "{number:03}"}}\n' for number in range(20))
    text += some_lines(40)
    result = daemon.invoke("send", "acme", "--batch", "-", input=text)
    assert result.stdout == "60 lines: 60 accepted\n"
    numbers = [text for text in outbox.order if not text.startswith("text")]
    assert numbers == sorted(numbers)
    assert result.stderr.count("\n") == isinstance(error, QueueFull)  # told once, not each time


def test_a_refused_line_does_not_hold_up_the_others(daemon: Daemon, outbox: Outbox):
    def refuse(params: Any) -> None:
        if params.text == "text 3":
            raise KeyConflict("used before")

    outbox.refuse = refuse
    result = daemon.invoke("send", "acme", "--batch", "-", input=some_lines(9))
    assert (result.exit_code, result.stdout) == (1, "9 lines: 8 accepted, 1 refused\n")
    assert result.stderr == "line 4: used before\n"
    result = daemon.invoke("send", "acme", "--batch", "-", "--json", input=some_lines(9))
    told = {line["line"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert sorted(told) == list(range(1, 10))
    assert told[4]["error"]["name"] == "key_conflict"
    assert told[5]["state"] == "queued"
    assert json.loads(result.stderr)["summary"]["failed"] == 1


def test_a_full_disk_ends_the_batch_with_an_account(daemon: Daemon, outbox: Outbox):
    def refuse(params: Any) -> None:
        if len(outbox.rows) == 5:
            raise StoreFailed("the disk is full")

    outbox.refuse = refuse
    result = daemon.invoke("send", "acme", "--batch", "-", input=some_lines(500))
    assert result.exit_code == 1
    assert "the disk is full: 500 lines: 5 accepted, 495 left" in result.stderr
    assert "run the same again" in result.stderr
    outbox.refuse = None
    result = daemon.invoke("send", "acme", "--batch", "-", input=some_lines(500))
    assert len(outbox.rows) == 500


def test_the_time_can_be_limited(daemon: Daemon, outbox: Outbox):
    def refuse(params: Any) -> None:
        if len(outbox.rows) == 5:
            raise QueueFull("5 wait, the limit is 5")

    outbox.refuse = refuse
    arguments = ("send", "acme", "--batch", "-", "--timeout", "0.5", "--json")
    result = daemon.invoke(*arguments, input=some_lines(50))
    assert result.exit_code == 6
    told = json.loads(result.stderr.splitlines()[-1])
    assert told["error"]["name"] == "timed_out"
    assert told["summary"] == {
        "lines": 50, "accepted": 5, "accepted_before": 0, "failed": 0, "bad": 0, "left": 45,
        "in_doubt": 0,
    }  # fmt: skip


def test_a_daemon_that_does_not_come_back_ends_it(
    daemon: Daemon, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch_sender, "PATIENCE", 0.5)
    stopping = threading.Event()

    def refuse(params: Any) -> None:
        if len(outbox.rows) == 20 and not stopping.is_set():
            stopping.set()
            daemon.stop()

    outbox.refuse = refuse
    result = daemon.invoke("send", "acme", "--batch", "-", input=some_lines(5000))
    assert result.exit_code == 3
    accepted = len(outbox.rows)
    assert 20 <= accepted < 5000
    assert f"5000 lines: {accepted} accepted, {5000 - accepted} left" in result.stderr


def test_a_daemon_that_hangs_ends_it(
    daemon: Daemon, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch_sender, "PATIENCE", 0.3)
    released = threading.Event()

    def refuse(params: Any) -> None:
        if len(outbox.rows) == 20:
            released.wait(20)

    outbox.refuse = refuse
    command = ["--socket", daemon.path, "send", "acme", "--batch", "-"]

    def body():
        try:
            return CliRunner().invoke(cli, command, input=some_lines(500))
        finally:
            released.set()

    result = daemon.run(body)
    assert result.exit_code == 6
    assert "gave no answer for 0.3 s" in result.stderr
    assert "(100 of them sent without an answer)" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["+1555"], ["--wait", "sent"], ["--key", "k"], ["--no-queue"], ["--key-prefix", "x" * 101]],
)
def test_what_makes_no_sense_with_a_batch(daemon: Daemon, outbox: Outbox, arguments: list[str]):
    assert daemon.invoke("send", "acme", *arguments, "--batch", "-", input="{}").exit_code == 2
    assert daemon.called("message.send") == []


def test_the_limits_are_those_of_the_daemon():
    assert (batch_lines.MAX_TEXT, batch_lines.MAX_KEY) == (MAX_TEXT, MAX_KEY)
    assert frozenset(batch_lines.ON_UNCERTAIN) == frozenset(map(str, OnUncertain))
    longest = json.dumps({"to": "+15550100", "text": "\U0001f600" * MAX_TEXT}).encode()
    assert len(longest) < batch_lines.MAX_LINE
    defaults = batch_lines.BatchDefaults("acme", None, None, "", frozenset({"acme"}))
    [line] = batch_lines.lines(io.BytesIO(longest), defaults)
    assert isinstance(line, batch_lines.BatchLine)
