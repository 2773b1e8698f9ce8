"""The daemon's protocol with its workers and its fork server.

Worker channel: MessagePack-RPC frames on a socketpair. The daemon sends requests, the worker
answers them and sends `event` notifications. Every event names its company, so that one worker
could hold several clients.

Fork server channel: one MessagePack map per packet on a SOCK_SEQPACKET pair, file descriptors
beside it (SCM_RIGHTS).

Both ends are ours and of one version; a surprise here is a defect, not an input to be polite to.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from whatsappd.errors import Malformed

EVENT = "event"
#: Tells a worker that its events up to `number` are on disk.
TAKEN = "taken"


class WorkerMethod(StrEnum):
    """Requests a worker answers. Arguments and results are maps.

    OPEN: directory, database, taken (the number of the last event that is on disk), proxy,
        noise_root and log_level; answered with nothing, once no other worker of the company lives
        any more. It must come first, and comes once.
    SEND: to, text and secret; answers message_id and timestamp_ms.
    LOOK_UP: phones; answers on_whatsapp, those of them that are.
    HEALTH: answers connected and logged_in.
    LOGOUT, STOP: nothing in, nothing out. After STOP the client is disconnected.
    """

    OPEN = "client.open"
    SEND = "client.send"
    LOOK_UP = "client.look_up"
    HEALTH = "client.health"
    LOGOUT = "client.logout"
    STOP = "client.stop"


class Kind(StrEnum):
    """What a worker tells of its client. The data of each is listed beside it."""

    QR = "qr"  # {code}
    LOGIN = "login"  # {outcome, detail}: whatsmeow's QR channel ended ("success", "timeout", ...)
    PAIRED = "paired"  # {jid, business_name, platform}
    PAIR_ERROR = "pair_error"  # {error}
    CONNECTED = "connected"  # {jid, lid, push_name}
    DISCONNECTED = "disconnected"  # {}
    KEEPALIVE_TIMEOUT = "keepalive_timeout"  # {error_count, last_success_ms}
    KEEPALIVE_RESTORED = "keepalive_restored"  # {}
    LOGGED_OUT = "logged_out"  # {on_connect, reason}
    STREAM_REPLACED = "stream_replaced"  # {}
    TEMPORARY_BAN = "temporary_ban"  # {code, expire_s}
    CONNECT_FAILURE = "connect_failure"  # {reason, message}
    CLIENT_OUTDATED = "client_outdated"  # {}
    STREAM_ERROR = "stream_error"  # {code}
    MESSAGE = "message"  # see worker.events
    RECEIPT = "receipt"  # see worker.events
    UNDECRYPTABLE = "undecryptable"  # see worker.events
    ENDED = "ended"  # {error}: connect() returned or raised; nothing more will come


#: What comes from WhatsApp once and never again: numbered, and confirmed when it is on disk.
INBOUND = frozenset({Kind.MESSAGE, Kind.RECEIPT, Kind.UNDECRYPTABLE})


class WorkerEvent(NamedTuple):
    company: str
    kind: Kind
    data: dict[str, Any]
    number: int | None = None  # of an INBOUND event; grows by one, from worker to worker

    def as_arguments(self) -> dict[str, Any]:
        return {
            "company": self.company,
            "kind": str(self.kind),
            "data": self.data,
            "number": self.number,
        }


def parse_worker_event(arguments: dict[str, Any]) -> WorkerEvent:
    """The event in an `event` notification's arguments.

    Raises:
        Malformed: it is none.
    """
    match arguments:
        case {
            "company": str(company),
            "kind": str(kind),
            "data": dict(data),
            "number": int() | None as number,
        }:
            try:
                return WorkerEvent(company, Kind(kind), data, number)
            except ValueError:
                pass
    raise Malformed(f"a worker sent no event: {arguments!r:.200}")
