"""A connected client: what is known of it, and what handlers may do to its connection.

`ConnectedClient` knows which device it is and what is on the way to it; `ClientWire` is the port to
its bytes, which `server.connection.ClientConnection` implements.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.state.accounts import LinkedDevice, QueueKey

#: Seconds that a client gets to act on the stanza that ends its stream. If the connection closes
#: while that stanza is still in whatsmeow's queue, whatsmeow may drop it and not learn the reason.
LAST_WORDS_GRACE = 0.5
#: Seconds that a client gets to close its side, or to close by itself after it was told to.
CLOSING_DEADLINE = 5


class ClientWire(Protocol):
    """The connection to one client. No method waits; a closed connection ignores them all."""

    def enqueue(self, stanza: bytes) -> None:
        """Encrypt a stanza for the next `flush`; the order of calls is the order on the wire."""

    def flush(self) -> None:
        """Send what was enqueued."""

    def send_later(self, node: Node, seconds: float) -> None:
        """Send a stanza after `seconds`, if the connection is still open then."""

    def close_after(self, grace: float) -> None:
        """Read no more stanzas, and close after `grace` seconds if the client does not."""

    def drop(self) -> None:
        """Close the TCP connection now, without a word (the fault)."""

    def freeze(self, seconds: float, *, cut: bool) -> None:
        """Neither read nor write for `seconds`, then close if `cut`, else go on (the fault)."""


class ConnectedClient:
    """One client with an open connection. `Switchboard` alone changes its attributes."""

    def __init__(self, wire: ClientWire) -> None:
        self.wire = wire
        #: The device that it logged in as; None before that, and when its stream has ended.
        self.device: LinkedDevice | None = None
        #: Whether it gets stanzas as they come. A client turns active after its login (`passive`).
        self.active = False
        #: Whether its stream is over: nothing that it sends counts any more.
        self.ending = False
        #: Of its device's queue: the stanzas that it has and did not acknowledge yet, …
        self.in_flight: set[QueueKey] = set()
        #: … those that it is yet to get, in order, …
        self.backlog: deque[QueueKey] = deque()
        #: … and how many had waited when it turned active; 0 when it has got all of these.
        self.waited = 0
