"""`whatsappctl send`: one message, and how waiting for it ends."""

from __future__ import annotations

import json

import pytest
from scripted_daemon import Daemon, event

from whatsappctl.commands import _waits
from whatsappd.errors import EXIT_USAGE, NotConnected, QueueFull, RateLimited
from whatsappd.model.content import Text

SUBSCRIBED = {"subscription": 1, "after": 0, "last_seq": 0, "gap": None}
ROW = {"id": "00aa", "company": "acme", "state": "queued", "reason": None, "message_id": None}
SENDING = ("send", "acme", "+15550100", "hi")


def becomes(*states: str, id: str = "00aa") -> list:
    return [
        event(seq, "outbox.state", id=id, state=state, reason=f"because {state}", message_id="M")
        for seq, state in enumerate(states, 1)
    ]


def test_send_prints_id_and_state(daemon: Daemon):
    daemon.answers = {"message.send": ROW}
    result = daemon.invoke("send", "acme", "+15550100", "Your order", "--ttl", "1.5", "--key", "k")
    assert result.stdout == "00aa queued\n"
    [params] = daemon.called("message.send")
    assert (params.text, params.ttl_ms, params.key, params.wait) == (
        "Your order",
        1500,
        "k",
        "queued",
    )


@pytest.mark.parametrize("is_piped", [False, True])
def test_send_takes_content_of_any_kind(daemon: Daemon, is_piped: bool):
    daemon.answers = {"message.send": ROW}
    content = '{"kind": "text", "text": "Hello"}'
    given = ("-",) if is_piped else (content,)
    result = daemon.invoke("send", "acme", "+15550100", "--content", *given, input=content)
    assert result.stdout == "00aa queued\n"
    [params] = daemon.called("message.send")
    assert (params.text, params.content) == (None, Text("Hello"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("Hello", "--content", "{}"), "TEXT or --content"),
        (("--content", "Hello"), "no JSON"),
        (("--content", "[" * 99_999), "no JSON"),
        (("--content", '["text"]'), "must be an object"),
        (("--content", "{}"), "content.kind: is missing (accepted: text"),
        (("--content", '{"kind": "smell"}'), "(accepted: text"),
        (("--content", '{"kind": "text", "text": {"text": []}}'), "content.text"),
        (("--content", '{"kind": "text", "text": "\\ud800"}'), "no UTF-8"),
    ],
)
def test_what_is_no_content_is_a_wrong_call(daemon: Daemon, arguments: tuple[str, ...], word: str):
    daemon.answers = {"message.send": ROW}
    result = daemon.invoke("send", "acme", "+15550100", *arguments)
    assert result.exit_code == EXIT_USAGE
    assert word in result.stderr
    assert daemon.called("message.send") == []


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_send_reads_stdin(daemon: Daemon, arguments: list[str]):
    daemon.answers = {"message.send": ROW}
    daemon.invoke("send", "acme", "+15550100", *arguments, input="two\nlines\n")
    assert daemon.called("message.send")[0].text == "two\nlines"
    assert daemon.invoke("send", "acme", "+15550100", input="\n").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("send", "acme", "+15550100", "a\udcff"), "text"),
        (("send", "acme", "\udc80", "hi"), "to"),
        (("send", "\udcff", "+15550100", "hi"), "company"),
        ((*SENDING, "--key", "\udcff"), "key"),
        (("stop", "\udcff"), "company"),
    ],
)
def test_bytes_that_are_no_text_are_refused_by_the_name_of_what_they_are(
    daemon: Daemon, arguments: tuple[str, ...], field: str
):
    # So Python hands over a command line that is not UTF-8.
    daemon.answers = {"message.send": ROW}
    result = daemon.invoke(*arguments)
    assert result.exit_code == EXIT_USAGE
    assert result.stderr == f"whatsappctl: {field}: cannot be packed: a string is no UTF-8 text\n"
    assert daemon.calls == []


@pytest.mark.parametrize(
    ("goal", "state"), [("sent", "sent"), ("sent", "read"), ("delivered", "delivered")]
)
def test_waiting_ends_when_the_message_got_that_far(daemon: Daemon, goal: str, state: str):
    daemon.answers = {"message.send": ROW, "message.get": ROW, "events.subscribe": SUBSCRIBED}
    daemon.events = becomes("failed", id="other") + becomes("sending", state)
    result = daemon.invoke(*SENDING, "--wait", goal, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == ROW | {
        "state": state, "reason": f"because {state}", "message_id": "M",
    }  # fmt: skip
    assert len(daemon.called("message.send")) == 1
    [asked] = daemon.called("events.subscribe")
    assert (asked.companies, asked.types) == (["acme"], ["outbox.state"])


def test_waiting_ends_at_once_when_it_got_that_far_before(daemon: Daemon):
    sent = ROW | {"state": "sent"}
    daemon.answers = {"message.send": ROW, "message.get": sent, "events.subscribe": SUBSCRIBED}
    assert daemon.invoke(*SENDING, "--wait", "sent").stdout == "00aa sent\n"


def test_sent_is_not_delivered(daemon: Daemon):
    daemon.answers = {"message.send": ROW, "message.get": ROW, "events.subscribe": SUBSCRIBED}
    daemon.events = becomes("sending", "sent")
    result = daemon.invoke(*SENDING, "--wait", "delivered", "--timeout", "0.1")
    assert (result.exit_code, result.stdout) == (6, "00aa sent\n")
    assert "00aa is not delivered after 0.1 s, but sent; it goes on" in result.stderr


@pytest.mark.parametrize("state", ["failed", "expired", "cancelled"])
@pytest.mark.parametrize("waits", [True, False])
def test_send_fails_when_the_message_will_not_arrive(daemon: Daemon, state: str, waits: bool):
    row = ROW | {"state": state, "reason": "bad number"}
    daemon.answers = {"message.send": row, "message.get": row, "events.subscribe": SUBSCRIBED}
    result = daemon.invoke(*SENDING, *(["--wait", "sent"] if waits else []))
    assert (result.exit_code, result.stdout) == (1, f"00aa {state}\n")
    assert "bad number" in result.stderr


def test_an_uncertain_message_has_an_exit_code_of_its_own(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_waits, "UNCERTAIN_FOR", 0.05)
    daemon.answers = {"message.send": ROW, "message.get": ROW, "events.subscribe": SUBSCRIBED}
    daemon.events = becomes("sending", "uncertain")
    result = daemon.invoke(*SENDING, "--wait", "sent")
    assert (result.exit_code, result.stdout) == (11, "00aa uncertain\n")
    assert "because uncertain" in result.stderr
    assert "whatsappctl outbox resolve 00aa" in result.stderr


def test_a_message_that_was_uncertain_for_a_moment_is_waited_for(daemon: Daemon):
    daemon.answers = {"message.send": ROW, "message.get": ROW, "events.subscribe": SUBSCRIBED}
    daemon.events = becomes("sending", "uncertain", "queued", "sending", "sent")
    result = daemon.invoke(*SENDING, "--wait", "sent")
    assert (result.exit_code, result.stdout) == (0, "00aa sent\n")
    assert "uncertain" in result.stderr


def test_a_daemon_that_stops_meanwhile_has_the_message(daemon: Daemon):
    daemon.answers = {"message.send": ROW, "message.get": ROW, "events.subscribe": SUBSCRIBED}
    daemon.then = daemon.stop
    result = daemon.invoke(*SENDING, "--wait", "sent")
    assert (result.exit_code, result.stdout) == (3, "00aa queued\n")
    assert "00aa is accepted and safe" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (RateLimited("acme: try again in 12.5 s", retry_after_ms=12500), 5, "again in 12.5 s"),
        (QueueFull("10000 messages wait"), 5, "10000"),
        (NotConnected("acme is not connected"), 4, "not connected"),
    ],
)
def test_what_cannot_be_queued_has_its_exit_code(daemon: Daemon, error, code: int, word: str):
    daemon.answers = {"message.send": error}
    result = daemon.invoke(*SENDING, "--no-queue", "--on-uncertain", "resend")
    assert (result.exit_code, result.stdout) == (code, "")
    assert word in result.stderr
    [params] = daemon.called("message.send")
    assert (params.no_queue, params.on_uncertain) == (True, "resend")
    result = daemon.invoke(*SENDING, "--no-queue", "--json")
    assert json.loads(result.stderr)["error"]["data"] == error.data


@pytest.mark.parametrize(
    "arguments",
    [["acme"], [], ["acme", "+15550100", "hi", "--skip-bad"], [*SENDING[1:], "--key-prefix", "x"]],
)
def test_what_makes_no_sense_is_wrong_usage(daemon: Daemon, arguments: list[str]):
    daemon.answers = {"message.send": ROW}
    assert daemon.invoke("send", *arguments).exit_code == 2
    assert daemon.calls == []
