"""A daemon that holds its connections and answers nothing: everybody is told so, in seconds."""

from __future__ import annotations

import os
import signal

import trio
from gateways import Stack
from websockets import open_websocket

from whatsappd.gateway.daemon_link import ALIVE_WITHIN, ASK_EVERY

#: And some for a busy machine.
SOON = ASK_EVERY + ALIVE_WITHIN + 5


async def test_a_daemon_that_stands_still_is_told_of_and_found_again(own_stack: Stack) -> None:
    stack = own_stack
    key = await stack.key()
    async with (
        stack.http(key) as http,
        stack.http(key) as sse,
        open_websocket(stack.gateway.port, key=key) as events,
        sse.stream("GET", "/v1/events", headers={"Accept": "text/event-stream"}) as stream,
    ):
        await events.receive()
        assert (await http.get("/readyz")).json() == {"ready": True, "daemon": "ok"}
        os.kill(stack.daemon.pid, signal.SIGSTOP)
        try:
            answers: list[tuple[int, str]] = []

            async def ask(method: str, path: str) -> None:
                answer = await http.request(method, path, json={} if method == "POST" else None)
                answers.append((answer.status_code, answer.json()["detail"]))

            with trio.fail_after(SOON):
                async with trio.open_nursery() as nursery:
                    for _ in range(40):
                        nursery.start_soon(ask, "GET", "/v1/sessions")
                        nursery.start_soon(ask, "GET", "/v1/health")
                        nursery.start_soon(ask, "POST", "/v1/sessions/acme/stop")
                _, closed = await events.rest()
                text = "".join([part async for part in stream.aiter_text()])
            assert {status for status, _ in answers} <= {503, 504}
            assert any("stopped, stuck or overloaded" in detail for _, detail in answers)
            assert closed.code == 4503
            assert "does not answer" in (closed.reason or "")
            assert "event: stream.ended" in text
            assert (await http.get("/livez")).json() == {"gateway": "ok", "daemon": "away"}
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            # From now on nobody waits: not for one answer, and not for many.
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(ask, "GET", "/v1/sessions")
            assert trio.current_time() - began < SOON / 2
        finally:
            os.kill(stack.daemon.pid, signal.SIGCONT)
        with trio.fail_after(20):
            while (await http.get("/readyz")).status_code != 200:
                await trio.sleep(0.05)
        assert (await http.get("/v1/sessions")).status_code == 200
        async with open_websocket(stack.gateway.port, key=key) as again:
            assert "ready" in await again.receive()
