"""The limits of one connection: on everything that could grow or wait without end.

The limits of one user, on all connections together, are in `rules.bounds`.
"""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.rules.bounds import CONNECTIONS
from whatsappd.wire.frames import MAX_MESSAGE

#: Connections at a time. Each costs a file descriptor, so RLIMIT_NOFILE must leave room for them.
MAX_CONNECTIONS = CONNECTIONS.all
#: Requests of one connection that wait for their answer. Those answered at once do not count.
MAX_IN_FLIGHT = 128
#: Bytes that wait for a peer to read them; above it nothing more is read from that peer.
MAX_UNSENT = 256 * 1024
#: Seconds without a single byte leaving, after which a peer that does not read is dropped.
SEND_STALLED_AFTER = 10.0
#: Seconds within which a message that has begun must be whole: nobody holds memory by never ending.
WHOLE_WITHIN = 30.0
#: Seconds that the last words to a peer have to leave, however slowly it reads.
CLOSE_WITHIN = 10.0
#: Seconds that requests still have when their peer has closed its sending side.
HALF_CLOSED_FOR = 60.0
#: Seconds that requests in flight still have when the server is told to stop.
STOP_WITHIN = 5.0


class Limits(NamedTuple):
    """What one server holds; the defaults are the named constants of this module."""

    max_connections: int = MAX_CONNECTIONS
    max_in_flight: int = MAX_IN_FLIGHT
    max_message: int = MAX_MESSAGE
    max_unsent: int = MAX_UNSENT
    send_stalled_after: float = SEND_STALLED_AFTER
    whole_within: float = WHOLE_WITHIN
    close_within: float = CLOSE_WITHIN
    half_closed_for: float = HALF_CLOSED_FOR
    stop_within: float = STOP_WITHIN


DEFAULT_LIMITS = Limits()
