"""Errors in one format, and the limits on what a client may send."""

from __future__ import annotations

import json
import socket

import pytest
import trio
from gateways import Stack, make_events

from whatsappd.errors import RateLimited, TooManyRequests, all_errors
from whatsappd.gateway.admission import MAX_BODY
from whatsappd.gateway.problem_details import MEDIA_TYPE, HttpError, problem

MESSAGES = "/v1/sessions/acme/messages"


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.name)
def test_each_error_of_the_table_is_a_problem(kind) -> None:
    answer = problem(kind("what is wrong", detail_of_ours=1))
    told = json.loads(answer.body)
    assert answer.media_type == MEDIA_TYPE
    assert answer.status == told["status"] == kind.http_status
    assert (told["name"], told["code"], told["detail"]) == (kind.name, kind.code, "what is wrong")
    assert told["type"] == f"urn:whatsappd:problem:{kind.name}"
    assert told["data"] == {"detail_of_ours": 1}
    assert ("retry-after" in answer.headers) == (kind.http_status in (429, 503))


def test_a_client_is_told_when_to_come_again() -> None:
    assert problem(RateLimited("", retry_after_ms=1200)).headers["retry-after"] == "2"
    assert problem(RateLimited("", retry_after_ms=1)).headers["retry-after"] == "1"
    assert problem(TooManyRequests("")).headers["retry-after"] == "1"


def test_a_wrong_field_is_named_apart() -> None:
    told = json.loads(problem(HttpError(422, "invalid_params", "to: no", field="to")).body)
    assert told["errors"] == [{"field": "to", "message": "to: no"}]


async def test_what_is_wrong_with_a_request_is_said_in_one_format(stack: Stack) -> None:
    good = {"to": "+15550200", "text": "Hello"}
    as_json = {"Content-Type": "application/json"}
    async with stack.daemon.client() as client:
        await client.call("session.start", company="acme")
    async with stack.http(await stack.key()) as http:
        for method, path, given, status, name, field in [
            ("POST", MESSAGES, {"content": "{", "headers": as_json}, 400, "malformed", None),
            ("POST", MESSAGES, {"content": "[" * 99_999, "headers": as_json}, 400, "malformed",
             None),
            ("POST", MESSAGES, {"content": b"\xff", "headers": as_json}, 400, "malformed", None),
            ("POST", MESSAGES,
             {"content": b'{"to": "+15550200", "text": "\xff"}', "headers": as_json}, 400,
             "malformed", None),
            ("POST", MESSAGES, {}, 422, "invalid_params", "body"),
            ("PATCH", "/v1/sessions/acme", {}, 422, "invalid_params", "body"),
            ("PATCH", "/v1/webhooks/abcdefgh", {}, 422, "invalid_params", "body"),
            ("POST", MESSAGES, {"json": {"to": "+15550200"}}, 422, "invalid_params", "text"),
            ("POST", MESSAGES, {"json": {**good, "more": 1}}, 422, "invalid_params", "more"),
            ("POST", MESSAGES, {"json": {**good, "text": ""}}, 422, "invalid_params", "text"),
            ("POST", MESSAGES, {"json": {**good, "to": "nobody"}}, 422, "invalid_params", "to"),
            ("POST", MESSAGES, {"json": {**good, "ttl_ms": 2**70}}, 422, "invalid_params",
             "ttl_ms"),
            ("POST", MESSAGES,
             {"content": json.dumps({**good, "text": "\ud800"}), "headers": as_json},
             422, "invalid_params", "text"),
            *(
                ("POST", MESSAGES, {"json": {"to": "+15550200", "content": content}}, 422,
                 "invalid_params", "content")
                for content in (
                    "Hello", ["text"], {}, {"text": "Hello"}, {"kind": "smell"}, {"kind": 5},
                    {"kind": "unsupported", "type": "image"}, {"kind": "text"},
                    {"kind": "text", "text": ""}, {"kind": "text", "text": "x" * 65_537},
                    {"kind": "text", "text": {"kind": "text", "text": "x"}},
                    {"kind": "text", "text": "x", "url": "file:///etc/passwd"},
                )
            ),
            ("POST", MESSAGES, {"json": {**good, "content": {"kind": "text", "text": "x"}}}, 422,
             "invalid_params", "content"),
            ("POST", MESSAGES, {"json": good, "headers": {"Idempotency-Key": "x" * 201}}, 422,
             "invalid_params", "idempotency-key"),
            ("POST", MESSAGES, {"content": "to=1"}, 415, "unsupported_media_type", None),
            ("POST", "/v1/sessions/nobody/messages", {"json": good}, 404, "unknown_company", None),
            ("POST", "/v1/sessions/a..b/messages", {"json": good}, 422, "invalid_params",
             "company"),
            ("GET", f"{MESSAGES}/0123456789abcdef", {}, 404, "unknown_message", None),
            ("GET", f"{MESSAGES}?limit=0", {}, 422, "invalid_params", "limit"),
            ("GET", "/v1/events?type=no.such", {}, 422, "invalid_params", "types"),
            ("GET", "/v1/events?after=999999", {}, 422, "invalid_params", "after"),
            ("GET", "/v1/nothing", {}, 404, "no_such_path", None),
            ("GET", "/v1/sessions/", {}, 404, "no_such_path", None),
            ("BREW", "/v1/sessions", {}, 405, "method_not_allowed", None),
            ("POST", MESSAGES, {"json": {**good, "no_queue": True}}, 409, "not_connected", None),
        ]:  # fmt: skip
            answer = await http.request(method, path, **given)
            case = (method, path, str(given)[:100], answer.text)
            assert answer.status_code == status, case
            assert answer.headers["Content-Type"] == MEDIA_TYPE, case
            told = answer.json()
            assert (told["status"], told["name"]) == (status, name), case
            assert {"type", "title", "detail"} <= set(told), case
            if field is not None:
                assert told["errors"][0]["field"] == field, case
        assert answer.json()["data"]["state"] != "connected"


async def test_a_byte_order_mark_before_a_body_is_no_part_of_it(stack: Stack) -> None:
    async with stack.daemon.client() as client:
        await client.call("session.start", company="acme")
    body = json.dumps({"to": "+15550200", "text": "Hello"}).encode("utf-8-sig")
    async with stack.http(await stack.key()) as http:
        answer = await http.post(
            MESSAGES, content=body, headers={"Content-Type": "application/json"}
        )
    assert answer.status_code == 202, answer.text


async def test_what_a_client_may_make_us_hold_is_bounded(stack: Stack) -> None:
    key = await stack.key()

    async def raw(data: bytes) -> bytes:
        stream = await trio.open_tcp_stream("127.0.0.1", stack.gateway.port)
        async with stream:
            await stream.send_all(data)
            with trio.fail_after(20):
                return bytes(await stream.receive_some(65536))

    head = f"Host: x\r\nAuthorization: Bearer {key}\r\n".encode()
    huge = await raw(b"GET /v1/sessions HTTP/1.1\r\n" + head + b"X: " + b"y" * 40_000 + b"\r\n\r\n")
    assert huge.startswith(b"HTTP/1.1 431")
    # A body that says that it is too large is not waited for.
    declared = await raw(
        b"POST /v1/sessions HTTP/1.1\r\nContent-Length: %d\r\n" % (MAX_BODY + 1) + head + b"\r\n"
    )
    assert declared.startswith(b"HTTP/1.1 413")
    # A chunked body that grows beyond the limit, without ever saying how long it is.
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    grown = await raw(
        b"POST /v1/sessions HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n" + head + b"\r\n" + chunk * 17
    )
    assert grown.startswith(b"HTTP/1.1 413")
    # A stranger's body is not even waited for.
    stranger = await raw(
        b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    )
    assert stranger.startswith(b"HTTP/1.1 401")
    for method, status in [(b"GET", b"200"), (b"POST", b"405")]:
        waited = await raw(method + b" /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        assert waited.startswith(b"HTTP/1.1 " + status)
    async with stack.http(key) as http:
        assert (await http.get("/v1/sessions")).status_code == 200


async def test_a_gateway_with_a_stuck_client_stops_in_time(own_stack: Stack) -> None:
    stack = own_stack
    await make_events(stack.daemon, "acme", 2000)
    key = await stack.key("read")
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(("127.0.0.1", stack.gateway.port))
    async with trio.SocketStream(sock) as stuck:
        await stuck.send_all(
            f"GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        assert b"200" in await stuck.receive_some(1000)
        with trio.fail_after(12):
            assert await stack.gateway.stop() == 0


async def test_several_requests_share_one_connection_to_the_daemon(stack: Stack) -> None:
    async with stack.http(await stack.key()) as http:

        async def ask() -> None:
            assert (await http.get("/v1/sessions")).status_code == 200

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        async with stack.daemon.client() as client:
            # Ours, the shared one, the webhooks'; and maybe a stream's that is just ending.
            assert (await client.call("daemon.status"))["connections"] < 10


async def test_the_pages_of_no_company_need_no_key_and_no_other_host(stack: Stack) -> None:
    async with stack.http() as http:
        page = await http.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for outside in ("src=", "href='http", "url(", "@import", "<script", "<link"):
        assert outside not in page.text
    assert "/v1/sessions/{company}/messages" in page.text


async def test_a_request_whose_end_is_a_matter_of_opinion_ends_its_connection(stack: Stack) -> None:
    """Else a proxy that reads it otherwise would let the second one through unseen."""
    async with await trio.open_tcp_stream("127.0.0.1", stack.gateway.port) as client:
        await client.send_all(
            b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        answer = b""
        with trio.fail_after(10):
            while more := await client.receive_some(65536):
                answer += more
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"not both" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_connection_is_kept_for_the_next_look_at_what_is_public(stack: Stack) -> None:
    """That nothing of a body is waited for does not mean that its end is not noticed."""
    async with await trio.open_tcp_stream("127.0.0.1", stack.gateway.port) as client:
        for _ in range(20):
            await client.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            with trio.fail_after(10):
                while not answer.endswith(b"}"):
                    more = await client.receive_some(65536)
                    assert more, "hung up"
                    answer += more
            assert answer.startswith(b"HTTP/1.1 200")
