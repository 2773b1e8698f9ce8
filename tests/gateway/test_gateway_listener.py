"""What the listener bounds; and that TLS and Unix sockets lead to the same routes."""

from __future__ import annotations

import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio
from certificates import certificate
from daemons import PATIENCE
from gateways import Gateway, Stack

from whatsappd.errors import EXIT_ALREADY_RUNNING
from whatsappd.gateway import listener
from whatsappd.gateway.listener import GuardedListener, open_socket
from whatsappd.gateway.settings import parse_bind


async def test_https_leads_to_the_same_routes(stack: Stack, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    gateway = Gateway(tmp_path, stack.daemon.socket, "--tls-cert", str(cert), "--tls-key", str(key))
    await gateway.start()
    try:
        headers = {"Authorization": f"Bearer {await stack.key()}"}
        trusting = ssl.create_default_context(cafile=str(cert))
        url = f"https://127.0.0.1:{gateway.port}"
        async with httpx.AsyncClient(base_url=url, verify=trusting, headers=headers) as http:
            assert (await http.get("/v1/sessions")).status_code == 200
            stream = {"Accept": "text/event-stream"}
            async with http.stream("GET", "/v1/events?after=0", headers=stream) as following:
                assert following.status_code == 200
        plain = await trio.open_tcp_stream("127.0.0.1", gateway.port)
        async with plain:
            await plain.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"gateway" not in await plain.receive_some(1000)
    finally:
        assert await gateway.stop() == 0


async def test_a_unix_socket_leads_to_the_same_routes_and_goes_with_its_gateway(
    stack: Stack,
) -> None:
    path = stack.daemon.directory / "http.sock"
    directory = stack.daemon.directory / "unix"
    directory.mkdir()
    gateway = Gateway(directory, stack.daemon.socket, "--bind", f"unix:{path}", "--behind-proxy")
    await gateway.start()
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as http:
            assert (await http.get("/livez")).json()["gateway"] == "ok"
            forwarded = {"X-Forwarded-For": "6.6.6.6, 192.0.2.9"}
            assert (await http.get("/v1/sessions", headers=forwarded)).status_code == 401
        with trio.fail_after(PATIENCE):  # the log is written by a thread of its own
            while not (told := [x for x in gateway.lines() if x["event"] == "request_refused"]):
                await trio.sleep(0.02)
        [refused] = told
        assert refused["address"] == "192.0.2.9"  # what our proxy wrote, not what it was told
    finally:
        assert await gateway.stop() == 0
    assert not path.exists()


async def test_a_second_gateway_at_one_address_ends_in_words_and_the_first_serves_on(
    stack: Stack, tmp_path: Path
) -> None:
    """At another address it serves the same daemon, as the other tests' gateways do."""
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(path))
        first.listen()
        for bind in (f"127.0.0.1:{stack.gateway.port}", f"unix:{path}"):
            second = await trio.run_process(
                [sys.executable, "-m", "whatsappd", "gateway", "--bind", bind,
                 "--socket", str(stack.daemon.socket)],
                check=False, capture_stdout=True, capture_stderr=True,
            )  # fmt: skip
            assert second.returncode == EXIT_ALREADY_RUNNING
            [line] = second.stderr.decode().splitlines()
            assert "--bind" in line
        assert path.is_socket()
    async with stack.http() as http:
        assert (await http.get("/readyz")).status_code == 200


async def test_one_that_ends_slowly_leaves_its_successor_s_socket_alone(tmp_path: Path) -> None:
    """An old gateway lets its requests end while a new one listens already."""
    path = tmp_path / "http.sock"
    bind = parse_bind(f"unix:{path}")
    async with GuardedListener(open_socket(bind)) as old:
        await old.aclose()  # it accepts no more, and goes on with what it has
        assert not path.exists()
        async with GuardedListener(open_socket(bind)) as new:
            await old.aclose()
            assert path.is_socket()
            # Also if somebody took the file away under one that listens.
            path.unlink()
            async with GuardedListener(open_socket(bind)):
                await new.aclose()
                with socket.socket(socket.AF_UNIX) as asking:
                    assert asking.connect_ex(str(path)) == 0
        assert not path.exists()


async def test_a_file_that_somebody_put_there_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    async with GuardedListener(open_socket(parse_bind(f"unix:{path}"))):
        path.unlink()
        path.write_text("not a socket of ours")
    assert path.exists()


async def test_connections_beyond_the_limit_are_hung_up_on(monkeypatch) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 2)
    opened = open_socket(parse_bind("127.0.0.1:0"))
    port = opened.getsockname()[1]
    async with GuardedListener(opened) as guarded, trio.open_nursery() as nursery:
        clients = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        streams = [await guarded.accept() for _ in range(2)]

        async def accept_one() -> None:
            streams.append(await guarded.accept())

        nursery.start_soon(accept_one)
        third = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(5), suppress(trio.BrokenResourceError):
            assert await third.receive_some(1) == b""  # hung up, politely or not
        assert guarded.refused == 1
        guarded.release(streams[0])
        clients.append(await trio.open_tcp_stream("127.0.0.1", port))
        with trio.fail_after(5):
            while len(streams) < 3:
                await trio.sleep(0.01)
        for stream in [*streams, *clients, third]:
            await trio.aclose_forcefully(stream)


async def test_a_send_to_somebody_who_reads_nothing_ends(monkeypatch) -> None:
    monkeypatch.setattr(listener, "SEND_STALLED_AFTER", 0.2)
    opened = open_socket(parse_bind("127.0.0.1:0"))
    async with GuardedListener(opened) as guarded:
        client = trio.socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await client.connect(("127.0.0.1", opened.getsockname()[1]))
        stream = await guarded.accept()
        shielded = trio.CancelScope(shield=True)  # as an answer is sent: whole
        with client, shielded, pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x" * 10_000_000)
        guarded.release(stream)


async def test_all_bytes_of_a_large_send_arrive_in_order() -> None:
    opened = open_socket(parse_bind("127.0.0.1:0"))
    data = bytes(range(256)) * 20_000
    async with GuardedListener(opened) as guarded:
        client = await trio.open_tcp_stream("127.0.0.1", opened.getsockname()[1])
        stream = await guarded.accept()
        received = bytearray()
        async with client, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(data)
                await stream.aclose()

            nursery.start_soon(send)
            async for part in client:
                received += part
        assert bytes(received) == data
        guarded.release(stream)
