"""Behind a real nginx, configured as the guide says: its rules hold, and all of the API works."""

from __future__ import annotations

import grp
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio
from daemons import PATIENCE
from gateways import Stack
from nginx import Nginx, behind_socket, needs_nginx, running_nginx
from websockets import open_websocket

pytestmark = needs_nginx

#: A rule of the proxy, which nobody may get past.
DENIED = "location /v1/webhooks { return 403; }"


@pytest.fixture(scope="module")
def nginx(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    directory = tmp_path_factory.mktemp("nginx")
    with (
        behind_socket(stack, directory) as path,
        running_nginx(directory, path, locations=DENIED) as running,
    ):
        yield running


async def raw(nginx: Nginx, data: bytes, *, until: bytes | None = None) -> bytes:
    """All that is answered to these bytes within a second, or (longer) until there is that."""
    answer = b""
    async with await nginx.connect() as client:
        await client.send_all(data)
        with trio.move_on_after(1 if until is None else PATIENCE):
            while more := await client.receive_some(65536):
                answer += more
                if until is not None and until in answer:
                    break
    return answer


async def test_nobody_gets_past_the_rules_of_the_proxy(stack: Stack, nginx: Nginx) -> None:
    key = f"Host: wa.example\r\nAuthorization: Bearer {await stack.key()}\r\n".encode()
    hidden = b"GET /v1/webhooks HTTP/1.1\r\n" + key + b"\r\n"
    post = b"POST /v1/sessions HTTP/1.1\r\nContent-Type: application/json\r\n" + key
    chunked = b"0\r\n\r\n" + hidden
    assert b'{"sessions":[' in await raw(
        nginx, hidden.replace(b"webhooks", b"sessions"), until=b"sessions"
    )
    assert b"403 Forbidden" in await raw(nginx, hidden, until=b"Forbidden")
    attempts = [
        # Tunnels: an upgrade that is none of the WebSocket's, and HTTP/2 at once.
        b"GET /v1/sessions HTTP/1.1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\n" + key + b"\r\n" + hidden,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden,
        b"CONNECT wa.example:80 HTTP/1.1\r\n" + key + b"\r\n" + hidden,
        # Two opinions of where a request ends.
        *(
            post + framing + b"\r\n\r\n" + chunked
            for framing in (
                b"Content-Length: 5\r\nTransfer-Encoding: chunked",
                b"Transfer-Encoding: chunked\r\nContent-Length: 5",
                b"Content-Length: 5\r\nContent-Length: %d" % len(chunked),
                b"Content-Length: 5\r\nTransfer-Encoding:\tchunked",
                b"Content-Length: 5\r\nTransfer-Encoding : chunked",
                b"Content-Length: 5\r\nTransfer-Encoding: xchunked",
                b"Content-Length: 5\r\nTransfer-Encoding: identity, chunked",
                b"Content-Length: 5\r\n Transfer-Encoding: chunked",
                b"Content-Length: +5",
                b"Content-Length: 5\r\nX: \nTransfer-Encoding: chunked",
            )
        ),
        post + b"Transfer-Encoding: chunked\r\n\r\n0;\n\r\n" + hidden,
        post + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + hidden,
        post + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n" + hidden,
        b"GET /v1/events HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Content-Length: %d\r\n" % len(hidden) + key + b"\r\n" + hidden,
        # One handshake that is refused, and what follows it.
        b"GET /v1/events HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        + key + b"\r\n" + hidden,
        # One path that is written in another way.
        *(
            b"GET " + target + b" HTTP/1.1\r\n" + key + b"\r\n"
            for target in (
                b"//v1/webhooks", b"/v1//webhooks", b"/v1/./webhooks", b"/v1%2fwebhooks",
                b"/v1%2Fwebhooks", b"/x/../v1/webhooks", b"/x/..%2fv1/webhooks",
                b"/%76%31/%77ebhooks", b"/v1%252fwebhooks", b"/v1/webhooks%00", b"/v1/Webhooks",
                b"/v1\\webhooks", b"/v1/sessions/..%2f..%2fv1%2fwebhooks",
                b"/x#/../v1/webhooks",
                b"http://wa.example/v1/webhooks", b"http://wa.example//v1/webhooks",
            )
        ),
    ]  # fmt: skip
    answers: dict[bytes, bytes] = {}

    async def attempt(data: bytes) -> None:
        answers[data] = await raw(nginx, data)

    async with trio.open_nursery() as nursery:
        for data in attempts:
            nursery.start_soon(attempt, data)
    for data, answer in answers.items():
        assert b'"webhooks":' not in answer, data
        assert b"101 " not in answer, data


async def test_wrong_keys_are_counted_by_who_sends_them(nginx: Nginx) -> None:
    wrong = f"Authorization: Bearer wak_abcdefgh_{'A' * 43}\r\n"

    async def ask(source: str, number: int) -> str:
        forged = f"X-Forwarded-For: 192.0.2.{number}:99\r\nForwarded: for=192.0.2.{number}\r\n"
        request = f"GET /v1/sessions HTTP/1.1\r\nHost: x\r\n{forged}{wrong}\r\n"
        async with await nginx.connect(source) as client:
            await client.send_all(request.encode())
            return (await client.receive_some(65536))[9:12].decode()

    found = [await ask("127.0.0.2", number) for number in range(15)]
    assert found == ["401"] * 10 + ["429"] * 5
    assert await ask("127.0.0.3", 1) == "401"


async def test_all_of_the_api_works_below_a_path(stack: Stack, nginx: Nginx) -> None:
    key = await stack.key()
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{nginx.port}", headers=headers, timeout=20
        ) as http,
    ):
        made = await http.put("/wa/v1/sessions/below")
        assert made.headers["Location"] == "/wa/v1/sessions/below"
        assert (await http.get(made.headers["Location"])).json()["company"] == "below"
        assert (await http.get("/wa/openapi.json")).json()["servers"] == [{"url": "."}]
        assert (await http.get("/wa/docs")).status_code == 200
        head = f"Host: x\r\nAuthorization: Bearer {key}\r\nAccept: text/event-stream\r\n\r\n"
        streamed = await raw(
            nginx, f"GET /wa/v1/events?after=0 HTTP/1.1\r\n{head}".encode(), until=b"\ndata: "
        )
        assert b"text/event-stream" in streamed
        async with open_websocket(nginx.port, "after=0", key=key, path="/wa/v1/events") as events:
            assert "ready" in await events.receive()
        for address in ("192.0.2.1", "/evil", "//evil.example", "/a\\b"):
            forged = await http.put("/wa/v1/sessions/below2", headers={
                "X-Forwarded-Prefix": address, "X-Forwarded-Host": address,
            })  # fmt: skip
            assert forged.headers["Location"].startswith("/wa/v1/")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts nginx as another user")
async def test_the_web_servers_group_opens_the_socket_and_nobody_else(stack: Stack) -> None:
    try:
        grp.getgrnam("www-data")
    except KeyError:
        pytest.skip("there is no group www-data")
    directory = Path(tempfile.mkdtemp(prefix="wd-"))
    try:
        directory.chmod(0o755)
        with behind_socket(stack, directory, "--socket-group", "www-data") as path:
            assert path.stat().st_mode & 0o777 == 0o660
            assert path.group() == "www-data"
            for user, status in [("www-data", b"200"), ("nobody nogroup", b"502")]:
                with running_nginx(directory, path, user=user) as nginx:
                    answer = await raw(
                        nginx, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", until=b"\n"
                    )
                    assert answer[9:12] == status, (user, nginx.log.read_text())
    finally:
        shutil.rmtree(directory)
