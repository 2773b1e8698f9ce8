"""One delivery attempt: the status decides, and the address is used as it was written."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from whatsappd.gateway.webhooks.post import Outcome, Receiver, open_receiver

SECRET = "whsec_AAAA"
TIMEOUT_S = 2.0


class RawReceiver:
    """Answers each request with given bytes, and then does what it was told with the connection."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[list[str]] = []  # the request line and headers
        self.connections = 0


@asynccontextmanager
async def answering(
    answer: bytes, *, then: str = "close", host: str = "127.0.0.1"
) -> AsyncIterator[RawReceiver]:
    """`then`: "close" the connection, "keep" it open in silence, or send "endless" bytes."""
    raw = RawReceiver()

    async def serve(stream: trio.SocketStream) -> None:
        raw.connections += 1
        try:
            seen = b""
            while True:
                while b"\r\n\r\n" not in seen or not seen.endswith(b"{}"):
                    more = await stream.receive_some()
                    if not more:
                        return
                    seen += more
                raw.heads.append(seen.split(b"\r\n\r\n")[0].decode().split("\r\n"))
                seen = b""
                await stream.send_all(answer)
                if then == "close":
                    return
                while then == "endless":
                    await stream.send_all(b"x" * 1000)
        except trio.BrokenResourceError:
            pass  # whoever asked has heard enough

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host=host))
        raw.port = listener.socket.getsockname()[1]
        yield raw
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def receiver_at(url: str) -> AsyncIterator[Receiver]:
    async with open_receiver(
        url, SECRET, allow_private=True, timeout_s=TIMEOUT_S, tls=ssl.create_default_context()
    ) as receiver:
        yield receiver


async def posted(raw: RawReceiver) -> Outcome:
    async with receiver_at(f"http://127.0.0.1:{raw.port}/hook") as receiver:
        return await receiver.post("evt_1_1", b"{}")


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "keep"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "keep"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut", "close"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nslow", "keep"),
        (b"HTTP/1.1 200 OK\r\n\r\nwithout an end", "endless"),
        (b"HTTP/1.1 200 OK\r\n\r\nwithout an end", "keep"),
        (b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\ngarbage\r\n", "close"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "close"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", "keep"),
        (b"HTTP/1.0 200 OK\r\n\r\n", "close"),
    ],
)
async def test_a_success_is_one_whatever_becomes_of_the_body(answer: bytes, then: str) -> None:
    async with answering(answer, then=then) as raw:
        outcome = await posted(raw)
    assert outcome.ok
    assert outcome.error is None
    assert outcome.took_ms < TIMEOUT_S * 1000
    assert len(raw.heads) == 1


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\nbroken", 500, "status 500: broken"),
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", 410, "wants no more events"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", 302, "redirects are not followed"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", None, "failed"),
        (b"no HTTP at all\r\n\r\n", None, "the connection failed"),
        (b"", None, "the connection failed"),
        (b"HTTP/1.1 999999 Much\r\n\r\n", None, "the connection failed"),
    ],
)
async def test_all_else_is_a_failure_with_its_reason(
    answer: bytes, status: int | None, error: str
) -> None:
    async with answering(answer) as raw:
        outcome = await posted(raw)
    assert outcome.status == status
    assert error in str(outcome.error)
    assert outcome.is_gone == (status == 410)
    assert outcome.is_receivers == (status is None)


async def test_a_status_that_does_not_come_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.TIMEOUT_S", 0.2)
    async with answering(b"HTTP/1.1 200 OK\r\nX: ", then="keep") as raw:
        outcome = await posted(raw)
    assert (outcome.status, outcome.error) == (None, "no answer within 0.2 s")


@pytest.mark.parametrize("status", [429, 503, 500])
async def test_retry_after_is_heard(status: int) -> None:
    head = f"HTTP/1.1 {status} X\r\nretry-after: 17\r\nContent-Length: 0\r\n\r\n"
    async with answering(head.encode()) as raw:
        outcome = await posted(raw)
    assert outcome.retry_after_ms == 17_000
    assert outcome.is_receivers == (status in (429, 503))


async def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with (
        answering(answer, then="keep") as raw,
        receiver_at(f"http://127.0.0.1:{raw.port}/hook") as receiver,
    ):
        for _ in range(3):
            assert (await receiver.post("evt_1_1", b"{}")).ok
    assert (len(raw.heads), raw.connections) == (3, 1)


@pytest.mark.parametrize("target", ["/hook;v=1?x=1", "/a?", "/a;", "//a/../b?c=%2F&d=;", "/%zz"])
async def test_the_path_is_sent_as_it_was_written(target: str) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as raw:
        async with receiver_at(f"http://127.0.0.1:{raw.port}{target}") as receiver:
            assert (await receiver.post("evt_1_1", b"{}")).ok
        [head] = raw.heads
    assert head[0] == f"POST {target} HTTP/1.1"
    assert f"Host: 127.0.0.1:{raw.port}" in head


async def test_the_host_of_an_ipv6_address_has_brackets() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", host="::1") as raw:
        async with receiver_at(f"http://[::1]:{raw.port}/hook") as receiver:
            assert (await receiver.post("evt_1_1", b"{}")).ok
        [head] = raw.heads
    assert f"Host: [::1]:{raw.port}" in head
