"""Clients that real ones never are, on the sandbox's port: slow, wrong, hostile, too large."""

from __future__ import annotations

import os
import ssl
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from wire_client import (
    ACME,
    GLOBEX,
    HEADER,
    LinkClient,
    NewClient,
    NoiseClient,
    until,
    websocket_frame,
)

from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.protocol.noise_frames import MAX_FRAME, frame
from whatsappd.sandbox.protocol.stanza_codec import MAX_STANZA
from whatsappd.sandbox.server.sandbox import Sandbox

UPGRADE = (
    b"GET /ws/chat HTTP/1.1\r\nHost: x\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: abc\r\n\r\n"
)


async def closed(stream: trio.abc.ReceiveStream) -> None:
    """Return when the server has closed a connection, politely or not."""
    with trio.fail_after(10), suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


async def test_every_way_in_leads_to_the_websocket(sandbox: Sandbox, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=sandbox.info().ca_file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    request = UPGRADE.replace(b"/ws/chat", b"/ws/chat?ED=abc")
    socks = [
        b"\5\1\0",
        b"\5\1\0\3\x10web.whatsapp.com\1\xbb",
    ]
    connect = [b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\nHost: x\r\n\r\n"]
    for proxy in ([], connect, socks):
        for tls in (True, False):
            stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", sandbox.info().port)
            for greeting in proxy:
                await stream.send_all(greeting)
                assert await stream.receive_some()
            if tls:
                stream = trio.SSLStream(stream, context, server_hostname="web.whatsapp.com")
            # In small pieces: nothing may depend on how the stream is cut.
            for start in range(0, len(request), 20):
                await stream.send_all(request[start : start + 20])
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            await stream.aclose() if not tls else await trio.aclose_forcefully(stream)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0",
        b"\x05\xff",
        b"\5\1\0\5\2\0\1\1\2\3\4\0\1",
        b"\x16\x03\x01\x00\x05hello",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ws/chat HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET " + b"x" * 20_000,
        b"CONNECT x SPDY\r\n\r\n",
        UPGRADE + b"\x82\1x",
    ],
    ids=range(9),
)
async def test_garbage_ends_its_own_connection_only(
    sandbox: Sandbox, link: LinkClient, garbage: bytes
) -> None:
    client = await link(ACME)
    async with await trio.open_tcp_stream("127.0.0.1", sandbox.info().port) as stream:
        await stream.send_all(garbage)
        await stream.send_eof()
        await closed(stream)
    await until(sandbox, lambda: sandbox.stats()["connections"] == 1)
    assert (await client.request("w:p", "get")).text("type") == "result"


async def test_a_handshake_that_stops_is_ended(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatsappd.sandbox.server.connection.OPENING_DEADLINE", 0.05)
    async with await trio.open_tcp_stream("127.0.0.1", sandbox.info().port) as stream:
        await stream.send_all(UPGRADE + websocket_frame(HEADER + frame(NoiseClient().hello())))
        await closed(stream)


@pytest.mark.parametrize("payload", [b"", b"\xff", protobuf.encode({33: 1})])
async def test_a_payload_that_is_neither_login_nor_registration(
    sandbox: Sandbox, new_client: NewClient, payload: bytes
) -> None:
    client = new_client()
    await client.connect(payload)
    with pytest.raises((EOFError, trio.BrokenResourceError)):
        await client.receive()
    await until(sandbox, lambda: sandbox.stats()["connections"] == 0)
    assert sandbox.stats()["violations"] == 1


async def test_frames_that_do_not_decrypt_end_the_connection(
    sandbox: Sandbox, link: LinkClient
) -> None:
    client = await link(ACME)
    await client.send_frame(os.urandom(40))
    with pytest.raises(EOFError):
        await client.expect("nothing")
    assert "does not decrypt" in sandbox.stats()["last_violation"]


@pytest.mark.parametrize(
    "stanza",
    [b"\x02" + zlib.compress(bytes(MAX_STANZA + 1)), bytes(MAX_FRAME)],
    ids=["inflated", "plain"],
)
async def test_what_is_too_large_ends_its_connection_only(
    sandbox: Sandbox, link: LinkClient, stanza: bytes
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    with suppress(trio.BrokenResourceError):  # it hangs up before it has read all of it
        await acme.send_encoded(stanza)
    await until(sandbox, lambda: sandbox.stats()["connections"] == 1)
    assert "exceeds" in sandbox.stats()["last_violation"]
    assert (await globex.request("w:p", "get")).text("type") == "result"
    await acme.close()
    await acme.log_in()
    assert (await acme.request("w:p", "get")).text("type") == "result"


async def test_words_of_any_length_leave_the_figures_short(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    await acme.send(Node("x" * 1_000_000))
    await acme.request("y" * 1_000_000, "get")
    await acme.send(Node("presence", {"type": "available", "name": "n" * 1_000_000}))
    tag = b"\xfe" + (100_000).to_bytes(4, "big") + b"z" * 100_000
    await acme.send_encoded(b"\0\xf8\3" + tag + b"\xfa\0\3\3")  # an attribute named by a JID
    await until(sandbox, lambda: sandbox.stats()["connections"] == 1)
    assert sandbox.stats()["last_violation"].startswith("an attribute of <zzz")
    assert len(repr(sandbox.stats())) < 5000
    assert (await globex.request("w:p", "get")).text("type") == "result"


async def test_what_is_sent_takes_its_time_and_keeps_its_order(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme = await link(ACME)
    sandbox.fault("latency", seconds=0.2)
    began = trio.current_time()
    await acme.send(*(acme.message(acme.lid.account, f"M{n}") for n in range(3)))
    await until(sandbox, lambda: sandbox.stats()["accepted"] == 3)  # their acks are on the way
    sandbox.fault("latency", seconds=0)
    await acme.send(acme.message(acme.lid.account, "M3"))
    acks = [(await acme.expect("ack")).text("id") for _ in range(4)]
    assert acks == ["M0", "M1", "M2", "M3"]
    # By the client's own clock, which began before the server's.
    assert trio.current_time() - began >= 0.2
