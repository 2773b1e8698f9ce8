"""One event reads the same at each door, whatever is in it: bytes, and what breaks lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from whatsappctl.output import json_text as command_text
from whatsappd.api.events import LoggedEvent
from whatsappd.gateway.app import Application
from whatsappd.gateway.auth import NoAuthentication
from whatsappd.gateway.daemon_link import DaemonLink
from whatsappd.gateway.event_streams import StreamSender
from whatsappd.gateway.events import _SseOutlet, _WebSocketOutlet
from whatsappd.gateway.problem_details import HttpError, problem
from whatsappd.gateway.webhooks.signing import body_of

#: As the RPC hands it on: an image's key is random bytes, and people write what they like.
EVENT = {
    "seq": 7, "time_ms": 1, "company": "acme", "type": "message.received",
    "data": {
        "raw": bytes(range(256)),
        "image": {"media_key": b"\xff\xfe\x00\x80", "keys": [b"", b"\xc3"]},
        "text": "a\x85b\u2028c\u2029d\r\ne\x1b[2J\x9b31m\u202e \U0001f44d \x00",
    },
}  # fmt: skip


class Link(DaemonLink):
    """To a daemon whose log has this one event. `more`: fields that this gateway does not know."""

    def __init__(self, **more: Any) -> None:
        super().__init__(Path("/nowhere"))
        self._more = more

    async def request(self, method: str, arguments: dict[str, Any], *, actor: str | None) -> Any:
        assert method == "events.read"
        events = [{**EVENT, **self._more}]
        return {"events": events, "next": 7, "last_seq": 7, "gap": None, **self._more}


async def read_events(link: DaemonLink) -> httpx.Response:
    app = Application(link, NoAuthentication())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as http:
        return await http.get("/v1/events")


async def test_an_event_reads_the_same_at_each_door() -> None:
    page = await read_events(Link())
    assert page.status_code == 200
    sent: list[str] = []

    async def send(text: str) -> None:
        sent.append(text)

    await _SseOutlet(StreamSender(send)).event(EVENT)
    await _WebSocketOutlet(StreamSender(send)).event(EVENT)
    lines = sent[0].splitlines()  # as Python, and others, take a text's lines
    assert [line.partition(": ")[0] for line in lines] == ["id", "event", "data", ""]
    texts = {
        "rest": page.text,
        "sse": lines[2].removeprefix("data: "),
        "websocket": sent[1],
        "webhook": body_of(LoggedEvent(**EVENT)).decode(),
        "--json": command_text(EVENT),
    }
    read = {
        "rest": json.loads(texts["rest"])["events"][0],
        "websocket": json.loads(texts["websocket"])["event"],
        **{door: json.loads(texts[door]) for door in ("sse", "webhook", "--json")},
    }
    for door, value in read.items():
        assert value == read["--json"], door
        assert value["data"]["text"] == EVENT["data"]["text"]
    for door, text in texts.items():
        assert len(text.splitlines()) == 1, door
        assert text.isprintable(), door


def test_a_problem_can_hold_whatever_was_asked_for() -> None:
    told = problem(HttpError(422, "invalid_params", "to: \u2028\x9b", field=b"\xff")).body
    assert bytes(told).decode().isprintable()
    assert json.loads(told)["data"]["field"] == "/w=="


async def test_fields_that_only_a_newer_daemon_has_are_left_out() -> None:
    """As the guide says; whoever reads them has the gateway's own document of what there is."""
    newer = await read_events(Link(invented_later=1))
    assert newer.status_code == 200
    assert newer.json() == (await read_events(Link())).json()


async def test_an_answer_of_another_shape_says_that_the_versions_differ() -> None:
    answer = await read_events(Link(seq="7"))
    assert answer.status_code == 503
    assert "restart the gateway" in answer.json()["detail"]
