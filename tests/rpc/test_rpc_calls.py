"""Requests and answers over a real socket: order, pipelining, errors, who calls."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import msgpack
import msgspec
import pytest
import trio

from whatsappd.errors import (
    Denied,
    Internal,
    InvalidParams,
    NotConnected,
    TooLarge,
    TooManyRequests,
    UnknownMethod,
)
from whatsappd.rpc.client import open_client
from whatsappd.rpc.limits import Limits
from whatsappd.rpc.method import Call, Method
from whatsappd.rules.bounds import DEFECT_LINES


async def test_a_call_is_answered_with_the_callers_credentials(served):
    async with open_client(served.path) as client:
        assert await client.call("daemon.hello") == {
            "pid": os.getpid(),
            "uid": os.getuid(),
            "gid": os.getgid(),
        }


async def test_credentials_are_those_of_the_connecting_process(served):
    code = (
        "import socket, sys, msgpack; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(msgpack.packb([0, 1, 'daemon.hello', []]));"
        "print(msgpack.unpackb(s.recv(4096))[3]['pid'])"
    )
    run = await trio.run_process([sys.executable, "-c", code, served.path], capture_stdout=True)
    assert int(run.stdout) not in (0, os.getpid())


async def test_input_may_arrive_a_byte_at_a_time(served):
    peer = await served.raw()
    for byte in msgpack.packb([0, 5, "test.echo", [{"value": "añb"}]]):
        await peer.send(bytes([byte]))
        await trio.testing.wait_all_tasks_blocked()
    assert await peer.receive() == [1, 5, None, "añb"]


async def test_pipelined_requests_are_answered_in_order_and_at_once(served):
    peer = await served.raw()
    await peer.send(
        b"".join(msgpack.packb([0, n, "test.echo", [{"value": n}]]) for n in range(500))
    )
    for number in range(500):
        assert await peer.receive() == [1, number, None, number]


async def test_answers_of_waiting_methods_come_out_of_order(served):
    peer = await served.raw()
    await peer.request(1, "test.wait", value="slow")
    await peer.request(2, "test.echo", value="fast")
    assert await peer.receive() == [1, 2, None, "fast"]
    served.behaviour.gate.set()
    assert await peer.receive() == [1, 1, None, "slow"]


async def test_many_tasks_share_one_client(served):
    async with open_client(served.path) as client, trio.open_nursery() as nursery:
        answers = {}

        async def call(number: int) -> None:
            answers[number] = await client.call("test.wait", value=number)

        for number in range(100):
            nursery.start_soon(call, number)
        await served.until(lambda: served.behaviour.waiting == 100)
        served.behaviour.gate.set()
    assert answers == {number: number for number in range(100)}


async def test_the_answer_of_a_subscription_precedes_its_notifications(served):
    peer = await served.raw()
    await peer.request(1, "test.subscribe", size=3)
    assert await peer.receive() == [1, 1, None, "subscribed"]
    for number in range(3):
        assert await peer.receive() == [2, "event", [{"number": number}]]


async def test_notifications_reach_the_client_in_order(served):
    async with open_client(served.path) as client:
        await client.call("test.subscribe", size=2000)
        for number in range(2000):
            notice = await client.notifications.receive()
            assert notice == ("event", {"number": number})


@pytest.mark.parametrize(
    ("method", "arguments", "kind", "words"),
    [
        ("test.refuse", {}, NotConnected, "acme is not connected"),
        ("test.wait_boom", {}, NotConnected, "acme is not connected"),
        ("test.ekho", {}, UnknownMethod, "did you mean test.echo?"),
        ("x" * 10_000, {}, UnknownMethod, "daemon.hello lists"),
        ("test.boom", {}, Internal, "a defect of the daemon"),
        ("test.unpackable", {}, Internal, "a defect of the daemon"),
        ("test.big", {"size": 1 << 20}, TooLarge, "ask for less"),
    ],
)
async def test_errors_end_their_request_only(served, method, arguments, kind, words):
    async with open_client(served.path) as client:
        with pytest.raises(kind, match=words):
            await client.call(method, **arguments)
        assert await client.call("test.echo", value=1) == 1


async def test_a_defect_is_logged_under_the_reference_that_is_answered(served, capsys):
    async with open_client(served.path) as client:
        with pytest.raises(Internal) as caught:
            await client.call("test.boom")
    assert "secret" not in str(caught.value)
    logged = capsys.readouterr().out
    assert caught.value.data["reference"] in logged
    assert "the secret of acme" in logged


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        ({}, "company", "company: is missing (accepted: company, to, wait, companies)"),
        ({"company": "a"}, "to", "to: is missing"),
        ({"company": 5, "to": "b"}, "company", "company: Expected `str`, got `int`"),
        ({"company": "a", "to": "b", "toо": 1}, "toо", "toо: there is no such parameter"),
        (
            {"company": "a", "to": "b", "wait": "never"},
            "wait",
            "wait: Invalid enum value 'never' (accepted: queued, sent, delivered)",
        ),
        ({"company": "a", "to": "b", "companies": ["x", 5]}, "companies", "companies[1]: Expected"),
    ],
)
async def test_validation_names_the_field(served, arguments, field, words):
    async with open_client(served.path) as client:
        with pytest.raises(InvalidParams) as caught:
            await client.call("test.send", **arguments)
    assert caught.value.message.startswith(words)
    assert caught.value.data == {"field": field}


@pytest.mark.parametrize("params", [["acme"], [1, 2], [[]], [{"a": 2}] * 2, [None]])
async def test_positional_params_are_refused_and_the_connection_goes_on(served, params):
    peer = await served.raw()
    await peer.send(msgpack.packb([0, 1, "test.echo", params]))
    answer = await peer.receive()
    assert answer[:2] == [1, 1]
    assert answer[2]["name"] == "invalid_params"
    assert (await peer.call("test.echo", value=1))[3] == 1


async def test_requests_in_flight_are_limited_for_each_connection(serve):
    async with serve(Limits(max_in_flight=3)) as served, open_client(served.path) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client.call, "test.wait")
            await served.until(lambda: served.behaviour.waiting == 3)
            with pytest.raises(TooManyRequests, match="read some"):
                await client.call("test.wait")
            assert await client.call("test.echo", value=1) == 1
            async with open_client(served.path) as other:
                assert await other.call("test.echo", value=2) == 2
            served.behaviour.gate.set()
        assert await client.call("test.wait", value=3) == 3


async def test_methods_can_be_denied_by_peer(serve):
    asked = []

    def allow(call: Call, method: Method, arguments: Any) -> None:
        asked.append((call.peer.uid, method.name, method.writes, type(arguments)))
        if method.writes:
            raise Denied("user may only read")

    async with serve(allow=allow) as served, open_client(served.path) as client:
        with pytest.raises(Denied, match="only read"):
            await client.call("test.send", company="a", to="b")
        assert await client.call("test.echo", value=1) == 1
    assert [each[:3] for each in asked] == [
        (os.getuid(), "test.send", True),
        (os.getuid(), "test.echo", False),
    ]
    # What a rule may look at is parsed and checked already.
    assert all(issubclass(each[3], msgspec.Struct) for each in asked)


async def test_a_notification_from_the_peer_is_a_call_without_an_answer(served):
    peer = await served.raw()
    await peer.send(msgpack.packb([2, "test.subscribe", [{"size": 1}]]))
    assert await peer.receive() == [2, "event", [{"number": 0}]]
    await peer.send(msgpack.packb([2, "test.refuse", []]))
    kind, method, [error] = await peer.receive()
    assert (kind, method, error["name"]) == (2, "error", "not_connected")
    assert error["data"] == {"company": "acme", "method": "test.refuse"}
    assert (await peer.call("test.echo", value=1))[3] == 1


async def test_a_peer_that_closes_its_sending_side_still_gets_its_answers(served):
    peer = await served.raw()
    await peer.request(1, "test.wait", value="late")
    peer.sock.shutdown(socket.SHUT_WR)
    await served.until(lambda: served.behaviour.waiting == 1)
    served.behaviour.gate.set()
    assert await peer.receive() == [1, 1, None, "late"]
    assert await peer.receive() is None


async def test_a_caller_of_a_defect_cannot_fill_the_log(served, capsys):
    async with open_client(served.path) as client:
        for _ in range(200):
            with pytest.raises(Internal, match="a defect of the daemon"):
                await client.call("test.boom_often")
    assert capsys.readouterr().out.count("rpc_handler_failed") <= DEFECT_LINES.burst + 20
