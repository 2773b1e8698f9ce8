"""The server's beginning and end: stopping in order, and a host short of file descriptors."""

from __future__ import annotations

import resource
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from whatsappd.api.declaration import Declaration, NoParams, Result
from whatsappd.errors import Stopping, Unreachable
from whatsappd.rpc.client import open_client
from whatsappd.rpc.limits import Limits
from whatsappd.rpc.listener import close_listener, open_listener
from whatsappd.rpc.method import Method, MethodTable
from whatsappd.rpc.server import serve_rpc


async def test_stopping_lets_running_requests_finish_and_refuses_new_ones(served):
    answers = []
    async with open_client(served.path) as client, trio.open_nursery() as nursery:

        async def call() -> None:
            answers.append(await client.call("test.wait", value="finished"))

        nursery.start_soon(call)
        await served.until(lambda: served.behaviour.waiting == 1)
        served.server.stop()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Stopping, match="try again"):
            await client.call("test.echo")
        served.behaviour.gate.set()
    assert answers == ["finished"]
    await served.until(lambda: served.server.counts.open == 0)


async def test_stopping_has_a_deadline(serve):
    async with serve(Limits(stop_within=0.1)) as served, open_client(served.path) as client:
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(Unreachable):
                    await client.call("test.wait")

            nursery.start_soon(call)
            await served.until(lambda: served.behaviour.waiting == 1)
            served.server.stop()
        assert served.behaviour.cancelled.is_set()


async def test_idle_connections_end_when_the_server_stops(served):
    peers = [await served.raw() for _ in range(5)]
    await served.until(lambda: served.server.counts.open == 5)
    served.server.stop()
    for peer in peers:
        kind, method, [error] = await peer.receive()
        assert (kind, method, error["name"]) == (2, "error", "stopping")
        assert await peer.receive() is None


async def test_serving_returns_once_it_is_stopped(tmp_path: Path):
    listener = open_listener(tmp_path / "s")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_rpc, listener.socket, MethodTable([]))
            server.stop()
            server.stop()
    close_listener(listener)


async def test_cancelling_closes_everything_at_once(tmp_path: Path):
    listener = open_listener(tmp_path / "s")
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_rpc, listener.socket, MethodTable([]))
        async with open_client(tmp_path / "s") as client:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), suppress(trio.EndOfChannel):
                await client.notifications.receive()
    close_listener(listener)


async def test_running_out_of_file_descriptors_does_not_end_the_listener(served, capsys):
    used = len(list(Path("/proc/self/fd").iterdir()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    early = await served.raw()
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        # Connections wait in the backlog when the server cannot accept them.
        with suppress(OSError):
            while True:
                await served.raw()
        with trio.fail_after(5):
            while "rpc_accept_short" not in capsys.readouterr().out:
                await trio.sleep(0.01)
        assert (await early.call("test.echo", value=1))[3] == 1
    for peer in served.peers:
        assert (await peer.call("test.echo", value=2))[3] == 2


def test_a_table_refuses_what_would_let_unknown_parameters_pass():
    import msgspec

    class Loose(msgspec.Struct):
        company: str

    with pytest.raises(TypeError, match="forbid_unknown_fields"):
        Declaration("m.n", Loose, Result, "", writes=False)


def test_a_table_refuses_a_name_twice():
    declaration = Declaration("m.n", NoParams, Result, "", writes=False)
    make = partial(Method, declaration, lambda call, params: None)
    with pytest.raises(ValueError, match=r"m\.n is in the table twice"):
        MethodTable([make(), make()])
