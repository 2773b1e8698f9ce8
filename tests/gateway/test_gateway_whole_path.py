"""From the outside: link by QR through REST, send, receive over WebSocket, lose the daemon."""

from __future__ import annotations

import signal

import pytest
import trio
from daemons import PATIENCE
from gateways import Stack, link
from websockets import Refused, open_websocket


async def test_link_send_receive_and_survive_a_restart_of_the_daemon(own_stack: Stack) -> None:
    stack = own_stack
    made = await stack.make_key()
    key = made["key"]
    async with stack.http(key) as http:
        await link(stack, http, "acme", "+15550100")
        await link(stack, http, "globex", "+15550200")

        async with open_websocket(stack.gateway.port, "company=globex", key=key) as events:
            assert (await events.receive())["ready"]["gap"] is None
            sent = await http.post(
                "/v1/sessions/acme/messages?wait=delivered",
                json={"to": "+15550200", "text": "Hello"},
                headers={"Idempotency-Key": "order-1"},
            )
            assert sent.status_code == 201, sent.text
            row = sent.json()
            assert row["state"] in ("delivered", "read")
            received = await events.event(type="message.received")
            assert received["data"]["text"] == "Hello"
            assert (
                received["data"]["content"] == row["content"] == {"kind": "text", "text": "Hello"}
            )
            assert received["data"]["sender"]["phone"] == "+15550100"
            assert received["company"] == "globex"

        again = await http.post(
            "/v1/sessions/acme/messages",
            json={"to": "+15550200", "text": "Hello"},
            headers={"Idempotency-Key": "order-1"},
        )
        assert again.json()["id"] == row["id"]
        in_full = await http.post(
            "/v1/sessions/acme/messages",
            json={"to": "+15550200", "content": {"kind": "text", "text": "Hello"}},
            headers={"Idempotency-Key": "order-1"},
        )
        assert in_full.json()["id"] == row["id"]
        other = await http.post(
            "/v1/sessions/acme/messages",
            json={"to": "+15550200", "text": "Something else"},
            headers={"Idempotency-Key": "order-1"},
        )
        assert (other.status_code, other.json()["name"]) == (409, "key_conflict")
        assert (await http.get(sent.headers["Location"])).json()["id"] == row["id"]
        # Another company's messages do not exist under this one's path.
        assert (await http.get(f"/v1/sessions/globex/messages/{row['id']}")).status_code == 404

        # Lines gather for some milliseconds before they are written.
        async with stack.daemon.client() as client:
            with trio.fail_after(20):
                while True:
                    lines = (await client.call("daemon.audit"))["lines"]
                    if any(line["subject"] == row["id"] for line in lines):
                        break
                    await trio.sleep(0.02)
        by_key = {line["method"] for line in lines if line["actor"] == f"key:{made['id']}"}
        # A look at the state shows the code, too, if there is one by then.
        assert by_key - {"session.status"} == {"session.start", "session.qr", "message.send"}
        assert any(line["subject"] == row["id"] for line in lines)

        await _restart_under(stack, http, key, last=received["seq"])


async def _restart_under(stack: Stack, http, key: str, last: int) -> None:
    async with open_websocket(stack.gateway.port, "", key=key) as events:
        await events.receive()
        await stack.daemon.stop(signal.SIGKILL)
        _, closed = await events.rest()
        assert closed.code == 4503
    away = await http.get("/v1/sessions")
    assert away.status_code == 503
    assert int(away.headers["Retry-After"]) >= 1
    assert away.json()["name"] == "unreachable"
    assert (await http.get("/livez")).json() == {"gateway": "ok", "daemon": "away"}
    with pytest.raises(Refused) as refused:
        async with open_websocket(stack.gateway.port, "", key=key):
            pass
    assert refused.value.status == 503

    await stack.daemon.start()
    # The gateway was not touched: its next request finds the daemon.
    assert (await http.get("/v1/sessions")).status_code == 200
    async with open_websocket(stack.gateway.port, f"after={last}", key=key) as events:
        with trio.fail_after(PATIENCE):
            seqs = [(await events.event())["seq"] for _ in range(3)]
    assert seqs == [last + 1, last + 2, last + 3]


async def test_every_verb_of_a_session_and_every_form_of_its_code(stack: Stack) -> None:
    before = await stack.last_seq()
    async with stack.http(await stack.key()) as http:
        made = await http.post("/v1/sessions", json={"company": "verbs"})
        assert (made.status_code, made.headers["Location"]) == (201, "/v1/sessions/verbs")
        again = await http.post("/v1/sessions", json={"company": "verbs"})
        assert again.status_code == 200
        with trio.fail_after(PATIENCE):
            # The state is told a moment before the code is there.
            while not (status := (await http.get("/v1/sessions/verbs")).json())["qr_shown"]:
                await trio.sleep(0.05)
        assert status["state"] == "pairing"

        qr = "/v1/sessions/verbs/qr"
        text = (await http.get(qr, headers={"Accept": "text/plain"})).text
        assert text.startswith("https://wa.me/settings/linked_devices#")
        assert (await http.get(qr)).json()["qr"] == text
        png = await http.get(qr, headers={"Accept": "image/png"})
        assert png.content.startswith(b"\x89PNG")
        svg = await http.get(f"{qr}?format=svg")
        assert b"<svg" in svg.content
        assert svg.headers["Content-Type"] == "image/svg+xml"
        assert svg.headers["Cache-Control"] == "no-store"

        limits = await http.patch("/v1/sessions/verbs", json={"per_minute": 7})
        assert limits.json()["limits"]["per_minute"] == 7
        back = await http.patch("/v1/sessions/verbs", json={"per_minute": None})
        assert back.json()["limits"]["per_minute"] == 30

        assert (await http.post("/v1/sessions/verbs/stop")).json()["state"] == "stopped"
        assert (await http.post("/v1/sessions/verbs/start")).json()["wanted"] is True
        assert (await http.post("/v1/sessions/verbs/restart")).status_code == 200
        missing = await http.post("/v1/sessions/nobody/start")
        assert (missing.status_code, missing.json()["name"]) == (404, "unknown_company")

        queued = await http.post(
            "/v1/sessions/verbs/messages", json={"to": "+15550999", "text": "later"}
        )
        assert (queued.status_code, queued.json()["state"]) == (202, "queued")
        waited = await http.post(
            "/v1/sessions/verbs/messages?wait=sent&timeout=0.1",
            json={"to": "+15550999", "text": "later still"},
        )
        assert (waited.status_code, waited.json()["state"]) == (202, "queued")
        page = (await http.get("/v1/sessions/verbs/messages?limit=1")).json()
        assert [row["text"] for row in page["messages"]] == ["later still"]
        rest = await http.get(f"/v1/sessions/verbs/messages?limit=1&cursor={page['next']}")
        assert [row["text"] for row in rest.json()["messages"]] == ["later"]
        cancelled = await http.post(f"{queued.headers['Location']}/cancel")
        assert cancelled.json()["state"] == "cancelled"
        twice = await http.post(f"{queued.headers['Location']}/resolve", json={"as": "sent"})
        assert (twice.status_code, twice.json()["name"]) == (409, "wrong_state")

        first = (await http.get(f"/v1/events?after={before}&limit=2")).json()
        assert [event["seq"] for event in first["events"]] == [before + 1, before + 2]
        onward = await http.get(f"/v1/events?after={first['next']}&type=outbox.state")
        assert {event["type"] for event in onward.json()["events"]} == {"outbox.state"}

        removed = await http.delete("/v1/sessions/verbs?force=true")
        assert (removed.status_code, removed.content) == (204, b"")
        assert (await http.get("/v1/sessions/verbs")).status_code == 404
