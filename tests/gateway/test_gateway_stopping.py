"""`kill -TERM`, and the gateway is gone in time, whatever hangs in it; SIGHUP holds up nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
from certificates import certificate
from gateways import Gateway, Stack

from whatsappd.errors import EXIT_OK, EXIT_TIMED_OUT

#: Seconds that the gateway has here, and that a busy machine may add.
WITHIN = 2.0
SLACK = 5.0

#: What hangs, as code that the gateway's process runs at its start.
HANGS = {
    "the loop": """
        from whatsappd.gateway.listener import GuardedListener
        async def hang(self):
            time.sleep(3600)
        GuardedListener.cut_all = hang
    """,
    "a thread": """
        from whatsappd.gateway.listener import GuardedListener
        async def hang(self):
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(time.sleep, 3600)
        GuardedListener.cut_all = hang
    """,
    "a request": """
        from whatsappd.gateway.routing import RouteTable
        async def hang(self, request):
            if request.path != "/livez":
                return await plain(self, request)
            print("the request hangs", file=sys.stderr)
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()
        plain, RouteTable.answer = RouteTable.answer, hang
    """,
    "the deliverer": """
        import whatsappd.gateway.run as run
        async def hang(*arguments, **options):
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()
        run.run_deliverer = hang
    """,
}


def hanging(directory: Path, socket: Path, code: str) -> Gateway:
    lines = "\n".join(f"    {line[8:]}" for line in code.splitlines())
    (directory / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'gateway' in sys.orig_argv:\n"
        "    import time, trio, whatsappd.shutdown as shutdown\n"
        f"    shutdown.GATEWAY_WITHIN = {WITHIN}\n" + lines
    )
    gateway = Gateway(directory, socket)
    gateway.environment["PYTHONPATH"] = str(directory)
    return gateway


@pytest.mark.parametrize("what", HANGS)
async def test_whatever_hangs_it_is_gone_in_time(stack: Stack, tmp_path: Path, what: str) -> None:
    """The limit is shortened, so that the test is quick; nothing else is."""
    gateway = hanging(tmp_path, stack.daemon.socket, HANGS[what])
    await gateway.start()
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as client:
        await client.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        if what == "a request":
            with trio.fail_after(SLACK):
                while "the request hangs" not in gateway.log():
                    await trio.sleep(0.02)
        else:
            assert await client.receive_some(1000)
        began = trio.current_time()
        assert await gateway.stop() == EXIT_TIMED_OUT
    assert trio.current_time() - began < WITHIN + SLACK
    assert "stop_forced" in gateway.log()


async def test_a_second_signal_ends_it_at_once(stack: Stack, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, stack.daemon.socket)
    await gateway.start()
    assert gateway.process is not None
    key = await stack.key()
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as client:
        await client.send_all(head.encode() + b"Content-Length: 9\r\n\r\n{")
        while "daemon_reached" not in gateway.log():
            await trio.sleep(0.02)
        gateway.process.send_signal(signal.SIGTERM)
        with trio.fail_after(10):
            while "gateway_stopping" not in gateway.log():
                await trio.sleep(0.02)
        with trio.fail_after(4):
            assert await gateway.stop() == EXIT_OK


async def test_a_certificate_that_is_a_pipe_holds_up_nobody(stack: Stack, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    gateway = Gateway(tmp_path, stack.daemon.socket, "--tls-cert", str(cert), "--tls-key", str(key))
    await gateway.start()
    assert gateway.process is not None
    for path in (cert, key):
        path.unlink()
        os.mkfifo(path)
        before = len(gateway.log())
        gateway.process.send_signal(signal.SIGHUP)
        with trio.fail_after(10):
            while "certificate_kept" not in gateway.log()[before:]:
                await trio.sleep(0.02)
    assert "no regular file" in gateway.log()
    assert await gateway.stop() == EXIT_OK
