"""How the connections of a server share its memory and its event loop, fairly among users.

A server has one `Shares`. Each connection has the `Share` of its peer's user, so a user with fifty
connections gets no more memory and no more of the loop's time than a user with one. `rules.bounds`
has the bounds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from whatsappd.rpc.limits import DEFAULT_LIMITS, Limits
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.rules.bounds import (
    CONNECTIONS,
    DENIALS,
    UNFINISHED_BYTES,
    UNSENT_BYTES,
    WAITING_CALLS,
    Holder,
    Pace,
    Places,
)

#: Seconds that a user's connections work before others have their turn. Short calls take some 20
#: microseconds each, so this is about fifty of them.
SLICE_S = 0.001


@dataclass
class ConnectionCounts:
    """How many connections a server has, and had.

    Attributes:
        open: those that are open now.
        accepted: all since the start, including those refused afterwards.
        refused: those refused since the start: there were too many, or their user may not connect.
    """

    open: int = 0
    accepted: int = 0
    refused: int = 0


def by_user(peer: Peer) -> Holder:
    """The holder for a peer: root and the daemon's own user may use what is kept."""
    is_ours = peer.uid in (0, os.geteuid())
    return Holder(f"uid:{peer.uid}", is_capped=not is_ours, may_use_kept=is_ours)


class Share:
    """One user's share, for as long as the user has connections: the `exchange.Allowance`."""

    __slots__ = ("_line", "_shares", "_worked", "connections", "holder")

    def __init__(self, holder: Holder, shares: Shares) -> None:
        self.holder = holder
        self.connections = 0
        self._shares = shares
        self._worked = 0.0  # seconds since others had their turn
        self._line = trio.Lock()  # first come, first served

    @property
    def unsent(self) -> Places:
        """Where bytes that wait to be read are counted."""
        return self._shares.unsent

    def take_unfinished(self, size: int) -> None:
        """Hold bytes of a message that is not whole yet. Raises TooManyRequests."""
        self._shares.unfinished.take(self.holder, size)

    def give_unfinished(self, size: int) -> None:
        self._shares.unfinished.give(self.holder, size)

    def take_call(self) -> None:
        """Have one more call that waits. Raises TooManyRequests."""
        self._shares.calls.take(self.holder)

    def give_call(self) -> None:
        self._shares.calls.give(self.holder)

    def denied(self, now: float) -> float:
        """Count a denied call; how many seconds to read nothing more from that connection."""
        if not self.holder.is_capped:
            return 0.0  # the gateway's wrong keys are no reason to hold up its good ones
        return self._shares.denials.wait(self.holder.name, now)

    def work(self, seconds: float) -> bool:
        """Count work that was done; whether it is time for `turn`."""
        self._worked += seconds
        return self._worked >= SLICE_S

    @property
    def is_due(self) -> bool:
        """Whether `turn` is to be called before anything else is done."""
        return self._worked >= SLICE_S

    async def turn(self) -> None:
        """Let others go on. Of one user's connections, one comes back in each turn of the loop."""
        async with self._line:
            await trio.lowlevel.checkpoint()
            self._worked = 0.0


class Shares:
    """All users' shares of one server.

    Args:
        holder_of: whose places a peer takes.
    """

    def __init__(
        self, limits: Limits = DEFAULT_LIMITS, *, holder_of: Callable[[Peer], Holder] = by_user
    ) -> None:
        self._holder_of = holder_of
        self._shares: dict[str, Share] = {}
        self.counts = ConnectionCounts()
        most = limits.max_connections
        kept = CONNECTIONS.kept if most >= CONNECTIONS.all else 0
        self.connections = Places(CONNECTIONS._replace(all=most, kept=kept))
        self.unfinished = Places(UNFINISHED_BYTES)
        self.unsent = Places(UNSENT_BYTES)
        self.calls = Places(WAITING_CALLS)
        self.denials = Pace(DENIALS)

    def enter(self, peer: Peer) -> Share:
        """The share of a peer that connects. Give it back with `leave`.

        Raises:
            TooManyRequests: its user, or all together, have too many connections.
        """
        holder = self._holder_of(peer)
        self.connections.take(holder)
        share = self._shares.get(holder.name)
        if share is None:
            share = self._shares[holder.name] = Share(holder, self)
        share.connections += 1
        return share

    def leave(self, share: Share) -> None:
        """One of its connections is closed."""
        self.connections.give(share.holder)
        share.connections -= 1
        if not share.connections:
            del self._shares[share.holder.name]

    def report(self) -> list[dict[str, Any]]:
        """For `daemon.limits`."""
        places = (self.connections, self.unfinished, self.unsent, self.calls)
        return [each.report() for each in places]
