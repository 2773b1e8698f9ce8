"""Events of the event log: their types, and an event before it is logged.

`type` is `noun.verb`; `data` holds plain values only (what MessagePack carries). Times are integer
milliseconds since the epoch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from whatsappd.errors import Malformed

#: Of the data of events. 2: persons with both identities, contents with a kind.
EVENT_FORMAT = 2

SESSION_STATE = "session.state"
SESSION_QR = "session.qr"
SESSION_OUTREACH = "session.outreach"
MESSAGE_RECEIVED = "message.received"
MESSAGE_RECEIPT = "message.receipt"
MESSAGE_UNDECRYPTABLE = "message.undecryptable"
MESSAGE_UNREADABLE = "message.unreadable"
OUTBOX_STATE = "outbox.state"
ALERT = "alert"

EVENT_TYPES = (
    SESSION_STATE,
    SESSION_QR,
    SESSION_OUTREACH,
    MESSAGE_RECEIVED,
    MESSAGE_RECEIPT,
    MESSAGE_UNDECRYPTABLE,
    MESSAGE_UNREADABLE,
    OUTBOX_STATE,
    ALERT,
)
#: What came from WhatsApp: their data has `chat` and `sender`.
MESSAGE_TYPES = frozenset(
    {MESSAGE_RECEIVED, MESSAGE_RECEIPT, MESSAGE_UNDECRYPTABLE, MESSAGE_UNREADABLE}
)

#: The largest event, packed. It must fit into an RPC message with room for what is around it.
MAX_EVENT_BYTES = 768 * 1024


class Draft(NamedTuple):
    """An event that has no place in the log yet."""

    company: str
    type: str
    data: dict[str, Any]


class Event(NamedTuple):
    """A logged event. `seq` is global and gapless; `time_ms` is when the daemon learnt of it."""

    seq: int
    time_ms: int
    company: str
    type: str
    data: dict[str, Any]

    def as_wire(self) -> dict[str, Any]:
        return self._asdict()

    @classmethod
    def from_wire(cls, value: Any) -> Event:
        """The event that a daemon told of; what a newer one says beside is left out.

        Raises:
            Malformed: it is none.
        """
        match value:
            case {
                "seq": int(seq),
                "time_ms": int(time_ms),
                "company": str(company),
                "type": str(type),
                "data": dict(data),
            }:
                return cls(seq, time_ms, company, type, data)
        raise Malformed(f"whatsappd told of what is no event: {value!r:.200}")
