"""WebSocket and server-sent events: replay, resume, acks, and what becomes of slow readers."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack

import pytest
import trio
from daemons import PATIENCE
from gateways import Stack, make_events
from websockets import Refused, open_websocket

from whatsappd.errors import TooManyRequests
from whatsappd.gateway.auth import Identity, NoAuthentication
from whatsappd.gateway.event_streams import SLOW_AFTER, Streams
from whatsappd.rpc.client import RpcClient
from whatsappd.rules.bounds import BOUNDS, COMPANY_STREAMS, STREAMS, Places


async def seqs_behind(stack: Stack, first: int, key: str) -> list[int]:
    """What a key is shown of the log: QR codes, which renew themselves, are for some keys only."""
    found: list[int] = []
    async with stack.http(key) as http:
        while True:
            page = (await http.get(f"/v1/events?after={first}&limit=500")).json()
            found += [event["seq"] for event in page["events"]]
            first = page["next"]
            if first >= page["last_seq"]:
                return found


async def test_a_slow_reader_is_told_so_and_resumes_without_loss(stack: Stack) -> None:
    first = await stack.last_seq()
    await make_events(stack.daemon, "slow", 2500)
    last = await stack.last_seq()
    assert last - first > 5000
    key = await stack.key("read")
    shown = await seqs_behind(stack, first, key)
    last = shown[-1]
    async with open_websocket(
        stack.gateway.port, f"after={first}", key=key, receive_buffer=4096
    ) as events:
        await trio.sleep(SLOW_AFTER + 1)  # being slow is what is tested
        messages, closed = await events.rest()
    assert closed.code == 4408
    assert "resume" in closed.reason
    seqs = [message["event"]["seq"] for message in messages if "event" in message]
    assert seqs == shown[: len(seqs)]
    assert len(seqs) < len(shown)

    async with open_websocket(stack.gateway.port, f"after={seqs[-1]}", key=key) as events:
        while seqs[-1] < last:
            seqs.append((await events.event())["seq"])
    assert seqs == shown


async def test_a_consumer_goes_on_where_it_acknowledged(stack: Stack) -> None:
    first = await stack.last_seq()
    await make_events(stack.daemon, "consumed", 50)
    key = await stack.key("read")
    query = f"consumer=crm&after={first}"
    async with open_websocket(stack.gateway.port, query, key=key) as events:
        for seq in (1, 2, 3):
            assert (await events.event())["seq"] == first + seq
        await events.send({"ack": first + 3})
        while "acked" not in (message := await events.receive()):
            pass
        assert message == {"acked": first + 3}
        await events.send({"ack": 10**6})
        while "error" not in (message := await events.receive()):
            pass
        assert message["error"]["name"] == "invalid_params"
    async with open_websocket(stack.gateway.port, "consumer=crm", key=key) as events:
        assert (await events.receive())["ready"]["after"] == first + 3
        assert (await events.event())["seq"] == first + 4
    # A key that is bound to companies has consumers of its own.
    bound = await stack.key("read", ["consumed"])
    async with open_websocket(stack.gateway.port, "consumer=crm&after=0", key=bound) as events:
        assert (await events.receive())["ready"]["after"] == 0


async def test_anything_but_an_ack_ends_the_stream(stack: Stack) -> None:
    key = await stack.key("read")
    for text, code in [
        ("", 4400),
        ("no json", 4400),
        ("[]", 4400),
        ('{"ack": -1}', 4400),
        ('{"ack": true}', 4400),
        ('{"ack": 1, "x": 2}', 4400),
        ("[" * 4000, 4400),
        ("x" * 10_000, 1009),  # RFC 6455: message too big
    ]:
        async with open_websocket(stack.gateway.port, "consumer=crm", key=key) as events:
            await events.send_text(text)
            _, closed = await events.rest()
        assert closed.code == code, text[:20]


async def test_what_is_wrong_with_a_stream_is_said_before_it_begins(stack: Stack) -> None:
    key = await stack.key("read")
    for query, field in [
        ("after=-1", "after"),
        ("after=99999999999999999999", "after"),
        ("after=99999999", "after"),  # beyond the end
        ("type=no.such", "types"),
        ("consumer=two%20words", "consumer"),
        ("consumer=webhook:abcd1234", "consumer"),
        ("company=..", "companies"),
        ("nonsense=1", "nonsense"),
    ]:
        with pytest.raises(Refused) as refused:
            async with open_websocket(stack.gateway.port, query, key=key):
                pass
        assert refused.value.status == 422, query
        assert refused.value.problem["errors"][0]["field"] == field


async def test_where_there_is_no_websocket_a_problem_says_so(stack: Stack) -> None:
    key = await stack.key("read")
    for path in ("/livez", "/v1/sessions", "/"):
        with pytest.raises(Refused) as refused:
            async with open_websocket(stack.gateway.port, key=key, path=path):
                pass
        assert refused.value.status == 404
        assert refused.value.problem["name"] == "no_such_path"


async def test_filters_hold_for_the_replay_and_for_what_comes(stack: Stack) -> None:
    await make_events(stack.daemon, "noise", 50)
    await make_events(stack.daemon, "wanted", 50)
    key = await stack.key("read")
    query = "after=0&company=wanted&type=session.state"
    async with open_websocket(stack.gateway.port, query, key=key) as events:
        await events.receive()
        assert (await events.receive())["event"]["company"] == "wanted"
        async with stack.daemon.client() as client:
            await client.call("session.start", company="noise")
            await client.call("session.start", company="wanted")
            while True:
                event = (await events.receive())["event"]
                assert (event["company"], event["type"]) == ("wanted", "session.state")
                if event["data"]["state"] == "pairing":
                    break


async def test_server_sent_events_replay_follow_and_resume(own_stack: Stack) -> None:
    stack = own_stack
    await make_events(stack.daemon, "acme", 50)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "5"}
    async with (
        stack.http(await stack.key("read")) as http,
        http.stream("GET", "/v1/events?after=0", headers=headers) as stream,
    ):
        assert stream.status_code == 200
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        fields: list[tuple[str, str]] = []
        async for line in lines:
            name, _, value = line.partition(": ")
            if name:
                fields.append((name, value))
            if len(fields) >= 7:
                break
        assert fields[0] == ("id", "6")
        assert fields[1][0] == "event"
        assert json.loads(fields[2][1])["seq"] == 6
        assert fields[3] == ("id", "7")

        assert await stack.gateway.stop(signal.SIGTERM) == 0
        rest = [line async for line in lines]
        place = rest.index("event: stream.ended")
        assert json.loads(rest[place + 1].removeprefix("data: "))["code"] == 1001


async def test_a_revoked_key_ends_at_once_with_all_that_it_had_going_on(stack: Stack) -> None:
    """Its streams with what waited for them, its calls that wait, and its requests: none of it
    goes on until somebody looks again."""
    first = await stack.last_seq()
    await make_events(stack.daemon, "revoked", 2000)
    made, other = await stack.make_key("send"), await stack.key("read")
    async with stack.daemon.client() as client:
        row = await client.call("message.send", company="revoked", to="+15550999", text="x")
    path = f"/v1/sessions/revoked/messages/{row['id']}"
    async with (
        open_websocket(stack.gateway.port, key=other) as stays,
        open_websocket(
            stack.gateway.port, f"after={first}", key=made["key"], receive_buffer=4096
        ) as behind,
        stack.http(made["key"]) as http,
        trio.open_nursery() as nursery,
    ):
        assert (await http.get(path)).status_code == 200
        waited: list[int] = []

        async def wait_for_delivery() -> None:
            sending = http.post(
                "/v1/sessions/revoked/messages?wait=delivered&timeout=30",
                json={"to": "+15550998", "text": "x"},
            )
            waited.append((await sending).status_code)

        nursery.start_soon(wait_for_delivery)
        assert (await behind.event())["seq"] > first  # the rest waits: nobody reads it
        async with stack.daemon.client() as client:
            with trio.fail_after(PATIENCE):
                while len(await queued(client)) < 2:
                    await trio.sleep(0.01)
            await client.call("key.revoke", id=made["id"])
        assert (await http.get(path)).status_code == 401  # no key is believed for a while
        with trio.fail_after(10):
            messages, closed = await behind.rest()
            while not waited:
                await trio.sleep(0.01)
        assert closed.code == 4401
        assert len(messages) < 2000  # of 4000: what had left the daemon and the gateway
        assert waited == [401]
        async with stack.daemon.client() as client:
            await client.call("message.cancel", id=row["id"])
        assert (await stays.event(type="outbox.state"))["company"] == "revoked"


async def queued(client: RpcClient) -> list[str]:
    found = await client.call("message.list", company="revoked", states=["queued"])
    return [row["id"] for row in found["rows"]]


async def test_no_key_and_no_company_takes_the_streams_of_others() -> None:
    streams = Streams(NoAuthentication(), trio.Event())
    streams.by_key = Places(STREAMS._replace(each=2, all=7, kept=2))
    streams.by_company = Places(COMPANY_STREAMS._replace(each=3, all=7))
    acme = [Identity(f"key:acme{n}", "x", "read", frozenset({"acme"})) for n in range(3)]
    everybody = Identity("key:all", "x", "read", None)
    admin = Identity("key:root", "x", "admin", None)
    with ExitStack() as stack:

        def open_one(identity: Identity) -> None:
            stack.enter_context(streams._places(identity))

        open_one(acme[0])
        open_one(acme[0])
        with pytest.raises(TooManyRequests, match="key acme0 holds 2 of 2 event streams"):
            open_one(acme[0])
        open_one(acme[1])
        with pytest.raises(TooManyRequests, match="company acme holds 3 of 3"):
            open_one(acme[2])
        open_one(everybody)
        open_one(everybody)
        with pytest.raises(TooManyRequests, match="5 of 5 event streams") as refused:
            open_one(Identity("key:globex", "x", "read", frozenset({"globex"})))
        assert "acme" not in str(refused.value.as_wire())
        open_one(admin)
        assert streams.open == 6
    assert streams.open == streams.by_company.total == 0


async def test_limits_show_who_holds_the_gateway_s_streams(stack: Stack) -> None:
    made = await stack.make_key("read", ["acme"])
    async with (
        open_websocket(stack.gateway.port, key=made["key"]),
        stack.daemon.client() as client,
    ):
        with trio.fail_after(PATIENCE):
            while True:
                answer = await client.call("daemon.limits")
                held = {
                    each["name"]: {who["holder"]: who["held"] for who in each["holders"]}
                    for each in answer["bounds"]
                }
                if f"key:{made['id']}" in held["streams"]:
                    break
                await trio.sleep(0.1)
    assert held["company_streams"]["company:acme"] == 1
    assert set(held) == {bound.name for bound in BOUNDS}
