"""What every answer says of itself, and which methods there are: HEAD, OPTIONS and the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from certificates import certificate
from counted_gateway import Served, Stream, served_gateway
from gateways import Stack

from whatsappd.gateway.headers import POLICY

WEBSOCKET = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture(params=["plain", "tls"])
async def served(
    request: pytest.FixtureRequest, stack: Stack, tmp_path: Path
) -> AsyncIterator[Served]:
    given = certificate(tmp_path) if request.param == "tls" else None
    async with served_gateway(stack.daemon.socket, certificate=given) as gateway:
        yield gateway


async def head_of(client: Stream) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, and what came behind them with the same piece."""
    data = b""
    with trio.fail_after(20):
        while b"\r\n\r\n" not in data:
            more = await client.receive_some(65536)
            assert more, data
            data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(lines), "a header came twice"
    return int(first.split()[1]), headers, rest


async def test_every_answer_has_the_policy(served: Served, stack: Stack) -> None:
    key = f"Authorization: Bearer {await stack.key()}\r\n"
    asked = [
        (f"GET /v1/sessions HTTP/1.1\r\nHost: x\r\n{key}", 200),
        (f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{key}", 200),
        ("GET /v1/sessions HTTP/1.1\r\nHost: x\r\n", 401),
        (f"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n{key}", 404),
        (f"BREW /v1/sessions HTTP/1.1\r\nHost: x\r\n{key}", 405),
        (f"OPTIONS /v1/sessions HTTP/1.1\r\nHost: x\r\n{key}", 204),
        (f"HEAD /v1/sessions HTTP/1.1\r\nHost: x\r\n{key}", 200),
        ("GET / HTTP/1.1\r\nHost: x\r\n", 200),
        ("GET /page/page.js HTTP/1.1\r\nHost: x\r\n", 200),
        ("GET /docs HTTP/1.1\r\nHost: x\r\n", 200),
        ("GET /livez HTTP/1.1\r\nHost: x\r\nX: " + "y" * 20_000 + "\r\n", 431),
        ("GET /livez HTTP/1.1\r\n", 400),
        ("nonsense\r\n", 400),
        ("GET http://x/livez HTTP/1.1\r\nHost: x\r\n", 400),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n", 501),
        ("GET /livez HTTP/2.0\r\nHost: x\r\n", 505),
        (f"GET /v1/events HTTP/1.1\r\nHost: x\r\n{WEBSOCKET}", 401),
        ("GET /v1/events HTTP/1.1\r\nHost: x\r\n" + WEBSOCKET.replace("13", "8"), 426),
        # An upgrade to HTTP/2 is ignored.
        ("GET /livez HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
         "Connection: Upgrade, HTTP2-Settings\r\n", 200),
    ]  # fmt: skip
    for request, expected in asked:
        async with await served.connect() as client:
            await client.send_all(request.encode() + b"\r\n")
            status, headers, _ = await head_of(client)
        assert status == expected, request[:200]
        for name, value in POLICY:
            if name not in (b"content-security-policy", b"cache-control"):
                assert headers[name.decode()] == value.decode(), request
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert ("strict-transport-security" in headers) == (served.cafile is not None)
        assert "server" not in headers


async def test_head_is_get_without_a_body_and_options_tells_what_there_is(
    served: Served, stack: Stack
) -> None:
    key = f"Authorization: Bearer {await stack.key()}\r\n"
    for path, extra in [
        ("/livez", ""), ("/", ""), ("/openapi.json", ""), ("/v1/sessions", key),
        ("/v1/events", key), ("/v1/nothing", key),
    ]:  # fmt: skip
        found = []
        async with await served.connect() as client:
            for method in ("GET", "HEAD"):
                request = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n"
                await client.send_all(request.encode())
                status, headers, rest = await head_of(client)
                length = int(headers["content-length"])
                while method == "GET" and len(rest) < length:
                    rest += await client.receive_some(65536)
                assert len(rest) == (length if method == "GET" else 0), path
                del headers["date"]
                found.append((status, headers))
        assert found[0] == found[1]
    # A stream that is only looked at does not begin.
    async with await served.connect() as client:
        await client.send_all(
            f"HEAD /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{key}\r\n"
            "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        status, headers, rest = await head_of(client)
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert rest.startswith(b"HTTP/1.1 200") or (await head_of(client))[0] == 200
    for method, path, extra, status, allow in [
        ("OPTIONS", "/livez", "", 204, "GET, HEAD, OPTIONS"),
        ("POST", "/livez", "", 405, "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/v1/sessions", key, 204, "GET, HEAD, OPTIONS, POST"),
        ("TRACE", "/v1/sessions", key, 405, "GET, HEAD, OPTIONS, POST"),
        ("POST", "/v1/sessions/acme", key, 405, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
    ]:
        async with await served.connect() as client:
            request = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n"
            await client.send_all(request.encode())
            found_status, headers, _ = await head_of(client)
        assert (found_status, headers["allow"]) == (status, allow), (method, path)
