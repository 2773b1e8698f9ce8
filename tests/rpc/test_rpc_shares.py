"""One user's connections share what one user has; what is taken away ends at once.

All peers here are this very process, so the tests decide by the order of connecting whose they are.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgpack
import trio
from served import RawPeer, Served

from whatsappd.errors import Denied, Revoked
from whatsappd.rpc.limits import Limits
from whatsappd.rpc.method import Call, Method
from whatsappd.rpc.user_shares import Shares
from whatsappd.rules.bounds import Bound, Holder, Places

ALICE, BOB = Holder("uid:1001"), Holder("uid:1002")
ROOT = Holder("uid:0", is_capped=False, may_use_kept=True)


def shares_of(*holders: Holder, limits: Limits | None = None) -> Shares:
    """The first connection is the first holder's, and so on; those that follow are the last's."""
    coming = deque(holders)
    return Shares(
        limits or Limits(),
        holder_of=lambda _peer: coming.popleft() if len(coming) > 1 else coming[0],
    )


def few(bound: Bound, each: int, all: int, kept: int = 0) -> Places:
    return Places(bound._replace(each=each, all=all, kept=kept))


async def told(peer: RawPeer) -> dict[str, Any]:
    """The error of the connection, which is closed behind it."""
    kind, method, [error] = await peer.receive()
    assert (kind, method) == (2, "error")
    assert await peer.receive() is None
    return error  # type: ignore[no-any-return]


# --- who may connect ----------------------------------------------------------------------------


async def test_whom_no_rule_names_is_told_so_and_takes_no_place(serve: Any) -> None:
    def admit(_peer: Any) -> None:
        raise Denied("no access rule names user 1001")

    async with serve(Limits(max_connections=2), admit=admit) as served:
        for _ in range(10):
            stranger = await served.raw()
            error = await told(stranger)
            assert (error["name"], error["message"]) == (
                "denied", "no access rule names user 1001",
            )  # fmt: skip
        assert served.server.counts.open == 0
        assert served.server.counts.refused == 10


async def test_one_user_cannot_take_the_connections_of_others(serve: Any) -> None:
    shares = shares_of(ALICE, ALICE, ALICE, BOB, ROOT)
    shares.connections = few(shares.connections.bound, each=2, all=4, kept=1)
    async with serve(shares=shares) as served:
        first, second, third = [await served.raw() for _ in range(3)]
        assert "uid 1001 holds 2 of 2 connections" in (await told(third))["message"]
        bob = await served.raw()
        root = await served.raw()  # takes what is kept
        for peer in (first, second, bob, root):
            assert (await peer.call("test.echo", value=1))[3] == 1
        late = await served.raw()
        assert "together hold 4 of 4 connections" in (await told(late))["message"]
        for peer in (first, second, bob, root):
            peer.close()
        await served.until(lambda: shares.connections.total == 0)


# --- memory -------------------------------------------------------------------------------------


async def test_messages_that_are_never_whole_are_bounded_by_user(serve: Any) -> None:
    shares = shares_of(ALICE, ALICE, ALICE, BOB)
    shares.unfinished = few(shares.unfinished.bound, each=250_000, all=400_000)
    half = msgpack.packb([0, 1, "test.echo", [{"value": bytes(200_000)}]])[:100_000]
    async with serve(shares=shares) as served:
        alices = [await served.raw() for _ in range(3)]
        bob = await served.raw()
        for number, peer in enumerate(alices, 1):
            await peer.send(half)
            held = min(number, 2) * len(half)
            await served.until(lambda held=held: shares.unfinished.total >= held)  # type: ignore[misc]
        error = await told(alices[2])
        assert error["name"] == "too_many_requests"
        assert "of 250000 bytes of messages that are not whole yet" in error["message"]
        assert (await bob.call("test.echo", value=bytes(200_000)))[3] == bytes(200_000)
        alices[0].close()
        alices[1].close()
        await served.until(lambda: shares.unfinished.total == 0)


async def test_a_message_must_be_whole_in_time_however_it_trickles(serve: Any) -> None:
    async with serve(Limits(whole_within=0.3)) as served:
        slow = await served.raw()
        quick = await served.raw()
        message = msgpack.packb([0, 1, "test.echo", [{"value": "x" * 5000}]])

        async def trickle() -> None:
            for place in range(len(message)):
                await slow.send(message[place : place + 1])
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            error = await told(slow)
            assert (error["name"], "not whole" in error["message"]) == ("timed_out", True)
            nursery.cancel_scope.cancel()
        # A peer that is idle between messages is none that trickles.
        await quick.call("test.echo", value=1)
        await trio.sleep(0.4)
        assert (await quick.call("test.echo", value=2))[3] == 2


async def test_what_waits_for_one_users_peers_is_bounded_together(serve: Any) -> None:
    shares = shares_of(*[ALICE] * 5, BOB)
    shares.unsent = few(shares.unsent.bound, each=2_000_000, all=3_000_000)
    async with serve(shares=shares) as served:
        silent = [await served.raw() for _ in range(5)]
        bob = await served.raw()
        for peer in silent:  # each at most about 256 KiB and one answer, were it alone
            await peer.send(msgpack.packb([0, 1, "test.big", [{"size": 900_000}]]) * 3)
        await served.until(lambda: shares.connections.total < 6)
        assert shares.unsent.total <= 2_000_000
        assert (await bob.call("test.big", size=900_000))[3] == bytes(900_000)
        for peer in silent:
            peer.close()
        await served.until(lambda: shares.unsent.total == 0)


async def test_calls_that_wait_are_bounded_by_user(serve: Any) -> None:
    shares = shares_of(ALICE, ALICE, BOB)
    shares.calls = few(shares.calls.bound, each=3, all=10)
    async with serve(shares=shares) as served:
        first, second, bob = [await served.raw() for _ in range(3)]
        for number in range(3):
            await first.request(number, "test.wait")
        await served.until(lambda: served.behaviour.waiting == 3)
        await second.request(9, "test.wait")
        _, _, error, _ = await second.receive()
        assert "uid 1001 holds 3 of 3 calls" in error["message"]
        await bob.request(1, "test.wait", value="bob")
        await served.until(lambda: served.behaviour.waiting == 4)
        served.behaviour.gate.set()
        assert (await bob.receive())[3] == "bob"
        await served.until(lambda: shares.calls.total == 0)


# --- the loop's time ----------------------------------------------------------------------------


async def flood(peer: RawPeer, requests: bytes) -> None:
    """Send without end, and read what comes."""

    async def read() -> None:
        while await peer.sock.recv(1 << 20):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        while True:
            await peer.send(requests)


def calls(served: Served, name: str) -> int:
    return served.behaviour.table_in_use[name].tally.requests


async def test_many_busy_connections_of_one_user_are_one_to_others(serve: Any) -> None:
    many = 20
    async with serve(shares=shares_of(*[ALICE] * many, BOB)) as served:
        floods = [await served.raw() for _ in range(many)]
        bob = await served.raw()
        requests = msgpack.packb([0, 1, "test.echo", []]) * 3000
        async with trio.open_nursery() as nursery:
            for peer in floods:
                nursery.start_soon(flood, peer, requests)
            await served.until(lambda: calls(served, "test.echo") > 10_000)
            before = calls(served, "test.echo")
            for _ in range(20):
                assert (await bob.call("test.refuse"))[1] == 77
            between = (calls(served, "test.echo") - before) / 20
            nursery.cancel_scope.cancel()
    # A call of Bob's takes a few turns of the loop, in each of which Alice has one slice of a
    # millisecond: 50 to 150 calls. Were each of her connections to have one, it would be 20 times
    # that.
    assert between < 1500


async def test_whose_calls_are_denied_all_the_time_is_read_from_slowly(serve: Any) -> None:
    def allow(_call: Call, method: Method, _arguments: Any) -> None:
        if method.name == "test.send":
            raise Denied("not for you")

    def denials(served: Served) -> int:
        return served.behaviour.table_in_use["test.send"].tally.errors.get("denied", 0)

    many = 10
    shares = shares_of(*[ALICE] * many, BOB, ROOT)
    async with serve(allow=allow, shares=shares) as served:
        floods = [await served.raw() for _ in range(many)]
        bob, root = await served.raw(), await served.raw()
        requests = msgpack.packb([0, 1, "test.send", [{"company": "a", "to": "b"}]]) * 1000
        bound = shares.denials.bound
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for peer in floods:
                nursery.start_soon(flood, peer, requests)
            await served.until(lambda: denials(served) >= bound.burst)
            # Others are answered at once, denials too.
            assert (await bob.call("test.echo", value=1))[3] == 1
            assert (await bob.call("test.send", company="a", to="b"))[2]["name"] == "denied"
            await trio.sleep(1)
            took = trio.current_time() - began
            # Each connection is one ahead of its pause; and one of them is Bob's.
            assert denials(served) <= bound.burst + took * bound.per_second + many + 1
            nursery.cancel_scope.cancel()
        for _ in range(3):  # whoever speaks for many, as the gateway does, is not held up
            await root.send(requests[: len(requests) // 10])
            with trio.fail_after(5):
                for _ in range(100):
                    assert (await root.receive())[2]["name"] == "denied"


# --- what is taken away -------------------------------------------------------------------------


async def test_what_was_taken_away_ends_with_all_that_waits_to_be_sent(serve: Any) -> None:
    async with serve() as served:
        peer = await served.raw()
        await peer.request(1, "test.subscribe", size=100_000)
        await peer.request(2, "test.wait")
        await served.until(lambda: served.behaviour.waiting == 1)
        [connection] = served.server._connections
        await served.until(lambda: connection._writer.full)
        assert served.server.end(lambda _peer: True, Denied("taken away")) == 1
        assert connection._writer.unsent == 0
        await served.until(lambda: served.server.counts.open == 0)
        assert (served.behaviour.waiting, served.behaviour.subscribed) == (0, 0)
        received = 0
        with trio.fail_after(5):
            while True:
                try:
                    data = await peer.sock.recv(1 << 20)
                except ConnectionResetError:
                    break
                if not data:
                    break
                received += len(data)
        assert received < 300_000  # what the kernel had; 100,000 events have 2.4 MB


async def test_who_reads_everything_is_told_why_it_ends(serve: Any) -> None:
    async with serve() as served:
        peer = await served.raw()
        await peer.request(1, "test.wait")
        await served.until(lambda: served.behaviour.waiting == 1)
        served.server.end(lambda _peer: True, Denied("taken away"))
        assert (await told(peer))["message"] == "taken away"


async def test_an_actors_calls_and_connections_end_and_no_others(serve: Any) -> None:
    async with serve() as served:
        shared, stream = await served.raw(), await served.raw()
        for number, actor in enumerate(("key:gone", "key:stays")):
            await shared.send(
                msgpack.packb([0, number, "test.wait", [{"value": actor}, {"actor": actor}]])
            )
        await stream.send(msgpack.packb([0, 1, "test.subscribe_as", [{}, {"actor": "key:gone"}]]))
        assert (await stream.receive())[3] == "subscribed"
        await served.until(lambda: served.behaviour.waiting == 2)
        assert served.server.end_actor("key:gone", Revoked("the key was revoked")) == 2
        assert (await told(stream))["name"] == "revoked"
        _, number, error, _ = await shared.receive()
        assert (number, error["name"]) == (0, "revoked")
        served.behaviour.gate.set()
        assert await shared.receive() == [1, 1, None, "key:stays"]
