"""The daemon's protocol with its workers and its fork server.

Worker channel: MessagePack-RPC frames on a socketpair. The daemon sends requests, the worker
answers them and sends `event` notifications. Every event names its company, so that one worker
could hold several clients.

Fork server channel: one MessagePack map per packet on a SOCK_SEQPACKET pair, file descriptors
beside it (SCM_RIGHTS). The server says hello once, {problem, confined}: why it could not preload,
or nil, and what restricts it (`Confined`). A request is a `WorkerRequest`, with two descriptors:
the worker's channel, and what its stdout and stderr write to. The answer is {error}, or {pid,
confined} once the worker is confined, with the descriptors of `VIEW`, and then that of its seccomp
filter's listener if `confined.counted`.

Both ends are ours and of one version; a surprise here is a defect, not an input to be polite to.
But a worker runs native code on what strangers send, so the daemon checks what it tells. Of one
event that cannot be, it is told as `EventKind.UNREADABLE`, and reading goes on: the events beside
it are innocent. What is no event at all means that the worker is broken, which is its own end.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from whatsappd.errors import Malformed, TooLarge, WorkerFailed
from whatsappd.model.message import Message, Source
from whatsappd.model.person import Chat, Person
from whatsappd.wire.frames import pack, unpack
from whatsappd.wire.shortening import bounded

#: The file of a company's directory with what a worker brought and the daemon did not take.
SPOOL = "inbox.spool"

EVENT = "event"
#: Tells a worker that its events up to `number` are on disk.
TAKEN = "taken"


class WorkerMethod(StrEnum):
    """Requests a worker answers. Arguments and results are maps.

    OPEN: database, taken (the number of the last event that is on disk), proxy,
        noise_root and log_level; answered with nothing, once no other worker of the company lives
        any more. It must come first, and comes once.
    SEND: to, content (a `model.content.Sendable`) and secret; answers message_id and timestamp_ms.
    LOOK_UP: addresses, JIDs of phone numbers and LIDs without a device; answers accounts, the JID
        of each that exists (the phone number where it is known), which may be another one than was
        asked for, and lids, where they are known. Both are maps by address.
    HEALTH: answers connected and logged_in.
    LOGOUT, STOP: nothing in, nothing out. After STOP the client is disconnected.
    """

    OPEN = "client.open"
    SEND = "client.send"
    LOOK_UP = "client.look_up"
    HEALTH = "client.health"
    LOGOUT = "client.logout"
    STOP = "client.stop"


class EventKind(StrEnum):
    """What a worker tells of its client. `_FIELDS` has the data of each."""

    QR = "qr"
    LOGIN = "login"  # whatsmeow's QR channel ended ("success", "timeout", ...)
    PAIRED = "paired"
    PAIR_ERROR = "pair_error"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    KEEPALIVE_TIMEOUT = "keepalive_timeout"
    KEEPALIVE_RESTORED = "keepalive_restored"
    LOGGED_OUT = "logged_out"
    STREAM_REPLACED = "stream_replaced"
    TEMPORARY_BAN = "temporary_ban"
    CONNECT_FAILURE = "connect_failure"
    CLIENT_OUTDATED = "client_outdated"
    STREAM_ERROR = "stream_error"
    MESSAGE = "message"  # see worker.events
    RECEIPT = "receipt"  # see worker.events
    UNDECRYPTABLE = "undecryptable"  # see worker.events
    UNREADABLE = "unreadable"  # one of the kinds above that could not be taken over
    # A device could not read a message of ours and asked for it, and whatsmeow has forgotten it.
    FORGOTTEN = "forgotten"
    ENDED = "ended"  # connect() returned or raised; nothing more will come


_TEXT = (str,)
_OPTIONAL = (str, type(None))
_NUMBER = (int,)
_FLAG = (bool,)
_LIST = (list,)
_TEXTS = (dict,)  # from text to text
_Fields = dict[str, tuple[type, ...]]

#: What the data of an event must hold; it may hold more (the marks of `wire.shortening`).
_FIELDS: dict[EventKind, _Fields] = {
    EventKind.QR: {"code": _TEXT},
    EventKind.LOGIN: {"outcome": _TEXT, "detail": _OPTIONAL},
    EventKind.PAIRED: {"jid": _OPTIONAL, "business_name": _OPTIONAL, "platform": _OPTIONAL},
    EventKind.PAIR_ERROR: {"error": _OPTIONAL},
    EventKind.CONNECTED: {"jid": _OPTIONAL, "lid": _OPTIONAL, "push_name": _OPTIONAL},
    EventKind.KEEPALIVE_TIMEOUT: {"error_count": _NUMBER, "last_success_ms": _NUMBER},
    EventKind.LOGGED_OUT: {"on_connect": _FLAG, "reason": _NUMBER},
    EventKind.TEMPORARY_BAN: {"code": _NUMBER, "expire_s": _NUMBER},
    EventKind.CONNECT_FAILURE: {"reason": _NUMBER, "message": _TEXT},
    EventKind.STREAM_ERROR: {"code": _TEXT},
    EventKind.ENDED: {"error": _OPTIONAL},
    EventKind.RECEIPT: {"message_ids": _LIST, "receipt": _TEXT, "timestamp_ms": _NUMBER},
    EventKind.UNDECRYPTABLE: {
        "message_id": _TEXT,
        "timestamp_ms": _NUMBER,
        "unavailable": _FLAG,
    },
    # `of` is its kind, `error` what is wrong with it, `size` its bytes. Who sent it, as in a
    # message, where that is known.
    EventKind.UNREADABLE: {"of": _TEXT, "error": _TEXT, "size": _NUMBER, "message_id": _OPTIONAL},
    EventKind.FORGOTTEN: {"message_id": _TEXT, "chat": _TEXT, "sender": _TEXT},
}
#: What it must be beside that. (A message is all that `model.message` says of one.)
_STRUCTURES: dict[EventKind, type[Source]] = {
    EventKind.MESSAGE: Message,
    EventKind.RECEIPT: Source,
    EventKind.UNDECRYPTABLE: Source,
}
#: What the answer to a request must hold.
_ANSWERS: dict[WorkerMethod, _Fields] = {
    WorkerMethod.OPEN: {},
    WorkerMethod.SEND: {"message_id": _TEXT, "timestamp_ms": _NUMBER},
    WorkerMethod.LOOK_UP: {"accounts": _TEXTS, "lids": _TEXTS},
    WorkerMethod.HEALTH: {"connected": _FLAG, "logged_in": _FLAG},
    WorkerMethod.LOGOUT: {},
    WorkerMethod.STOP: {},
}
#: PID_MAX_LIMIT of the kernel.
_MAX_PID = 1 << 22
#: What SQLite stores.
_MAX_NUMBER = 2**63 - 1

#: What comes from WhatsApp once and never again: numbered, and confirmed when it is on disk.
INBOUND = frozenset(
    {
        EventKind.MESSAGE,
        EventKind.RECEIPT,
        EventKind.UNDECRYPTABLE,
        EventKind.UNREADABLE,
        EventKind.FORGOTTEN,
    }
)


class WorkerEvent(NamedTuple):
    company: str
    kind: EventKind
    data: dict[str, Any]
    number: int | None = None  # of an INBOUND event; grows by one, from worker to worker

    def as_arguments(self) -> dict[str, Any]:
        return {
            "company": self.company,
            "kind": str(self.kind),
            "data": self.data,
            "number": self.number,
        }

    @property
    def is_inbound(self) -> bool:
        """Whether it belongs into the log: else it is news about the session."""
        if self.kind is EventKind.UNREADABLE:
            return self.number is not None
        return self.kind in INBOUND


def blank(kind: EventKind) -> dict[str, Any]:
    """The data of an event of which nothing but its kind is known."""
    return {name: _BLANK[types] for name, types in _FIELDS.get(kind, {}).items()}


_BLANK: dict[tuple[type, ...], Any] = {_TEXT: "", _OPTIONAL: None, _NUMBER: 0, _FLAG: False}


def parse_worker_event(arguments: dict[str, Any]) -> WorkerEvent:
    """The event in an `event` notification's arguments, within `wire.shortening`.

    One that does not hold what its kind must becomes UNREADABLE, with the same number.

    Raises:
        Malformed: it is none.
    """
    match arguments:
        case {
            "company": str(company),
            "kind": str(kind),
            "data": dict(data),
            "number": number,
        } if number is None or (_fits(number, _NUMBER) and number > 0):
            try:
                event = WorkerEvent(company, EventKind(kind), bounded(data), number)
            except ValueError:
                pass
            else:
                try:
                    _check(event.data, _FIELDS.get(event.kind, {}), "told of a wrong", event.kind)
                    _check_structure(event.data, event.kind)
                except Malformed as error:
                    return event._replace(kind=EventKind.UNREADABLE, data=_refused(event, error))
                return event
    raise Malformed(f"a worker sent no event: {arguments!r:.200}")


def unpackable(event: WorkerEvent, error: Malformed) -> WorkerEvent:
    """What is told in the place of an event that cannot be packed."""
    about = {"of": str(event.kind), "error": error.message, "size": 0, "message_id": None}
    return event._replace(kind=EventKind.UNREADABLE, data=about)


def _refused(event: WorkerEvent, error: Malformed) -> dict[str, Any]:
    """What an event of kind UNREADABLE tells of one that it replaces."""
    known = {name: event.data[name] for name, type_ in _KNOWN if _is_one(event.data, name, type_)}
    about = {"of": str(event.kind), "error": error.message, "size": len(pack(event.data))}
    return {"message_id": None, **known, **about}


#: What is kept of an event that is refused, if it can be read.
_KNOWN: tuple[tuple[str, Any], ...] = (
    ("message_id", str | None),
    ("chat", Chat | None),
    ("sender", Person | None),
    ("from_me", bool),
)


def _is_one(data: dict[str, Any], name: str, type_: Any) -> bool:
    try:
        msgspec.convert(data[name], type_)
    except (KeyError, msgspec.ValidationError):
        return False
    return True


def _check_structure(data: dict[str, Any], kind: EventKind) -> None:
    structure = _STRUCTURES.get(kind)
    try:
        if structure is not None:
            msgspec.convert(data, structure)
    except msgspec.ValidationError as error:
        raise Malformed(f"a worker told of a wrong {kind}: {error!s:.200}") from error


def check_answer(method: WorkerMethod, result: Any) -> None:
    """Raises Malformed if `result` is no answer to `method`, or beyond `wire.shortening`."""
    if not isinstance(result, dict):
        raise Malformed(f"a worker's answer to {method} is no map: {result!r:.200}")
    if bounded(result) is not result:
        raise Malformed(f"a worker's answer to {method} is larger than any: {result!r:.200}")
    _check(result, _ANSWERS[method], "gave a wrong answer to", method)


#: Characters of a worker's reason that are kept: it goes into rows and events.
MAX_REASON = 1000


def reason_in_error(error: Any) -> str:
    """Why a worker refused, in its words."""
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or "no reason given")[:MAX_REASON]


def _check(
    values: dict[str, Any], fields: _Fields, wrong: str, of: EventKind | WorkerMethod
) -> None:
    for name, types in fields.items():
        if name not in values or not _fits(values[name], types):
            raise Malformed(f"a worker {wrong} {of}: {name} is {values.get(name)!r:.80}")


def _fits(value: Any, types: tuple[type, ...]) -> bool:
    if types is _NUMBER:
        # A truth value is an int to Python.
        return type(value) is int and -_MAX_NUMBER <= value <= _MAX_NUMBER
    if types is _LIST:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if types is _TEXTS:
        return isinstance(value, dict) and all(
            isinstance(each, str) for pair in value.items() for each in pair
        )
    return isinstance(value, types)


# --- the fork server ---------------------------------------------------------------------------

#: The largest packet of the fork server's channel, in bytes: a request holds some paths.
MAX_PACKET = 32 * 1024
#: The descriptors that come with a request.
DESCRIPTORS = 2
#: What a worker hands to the daemon of itself, opened: /proc/self/NAME (proc(5)).
VIEW = ("smaps_rollup", "fd", "status")
#: The most descriptors that come with an answer.
ANSWER_DESCRIPTORS = len(VIEW) + 1

#: How workers are to be confined (`sessions.confinement`): by what the kernel offers; or not at all
#: if it lacks something essential; or not.
AUTO, REQUIRED, OFF = "auto", "required", "off"


class Confined(NamedTuple):
    """What restricts a process."""

    landlock: int = 0  # the version (ABI); 0: no files are refused
    seccomp: bool = False  # whether system calls are
    counted: bool = False  # whether those refused can be counted
    lacking: str | None = None  # what is not in force, and why

    @property
    def is_whole(self) -> bool:
        """Whether nothing essential is missing."""
        return self.landlock > 0 and self.seccomp

    def as_wire(self) -> dict[str, Any]:
        return self._asdict()


class WorkerRequest(NamedTuple):
    """A worker that the fork server is to make.

    `ports`: the TCP ports that it may connect to. `apart`: places whose files it must not read,
    wherever its libraries are.
    """

    company: str
    directory: str
    ports: Sequence[int]
    apart: Sequence[str]
    confinement: str

    def as_wire(self) -> dict[str, Any]:
        return {**self._asdict(), "ports": list(self.ports), "apart": list(self.apart)}


class NewWorker(NamedTuple):
    """The fork server's good answer."""

    pid: int
    confined: Confined


def pack_hello(problem: str | None, confined: Confined) -> bytes:
    short = problem and problem[:_MAX_REASON]
    return pack({"problem": short, "confined": _short(confined).as_wire()})


def parse_hello(packet: bytes) -> tuple[str | None, Confined]:
    """Why a fork server could not preload (None if it could), and how it is confined.

    Raises:
        Malformed: it is no hello.
    """
    match _packet(packet):
        case {"problem": str() | None as problem, "confined": dict(confined)}:
            return problem, _confined(confined)
    raise Malformed(f"a fork server said no hello: {packet!r:.200}")


def parse_request(packet: bytes, descriptors: int) -> WorkerRequest:
    """Which worker is asked for.

    Raises:
        Malformed: it is no request, or has other than two `descriptors` beside it.
    """
    match _packet(packet):
        case {
            "company": str(company),
            "directory": str(directory),
            "ports": list(ports),
            "apart": list(apart),
            "confinement": str(confinement),
        } if (
            descriptors == DESCRIPTORS
            and all(type(port) is int and 0 <= port <= _MAX_PORT for port in ports)
            and all(isinstance(place, str) for place in apart)
            and confinement in (AUTO, REQUIRED, OFF)
        ):
            return WorkerRequest(company, directory, ports, apart, confinement)
    raise Malformed(f"no request for a worker: {packet!r:.200} with {descriptors} descriptors")


def pack_new_worker(worker: NewWorker) -> bytes:
    return pack({"pid": worker.pid, "confined": _short(worker.confined).as_wire()})


def parse_new_worker(packet: bytes, descriptors: int) -> NewWorker:
    """The worker that was forked.

    Raises:
        WorkerFailed: the fork server could not, and says why.
        Malformed: it is no answer, or has other `descriptors` beside it than it should.
    """
    match _packet(packet):
        case {"error": str(error)}:
            raise WorkerFailed(error)
        case {"pid": int(pid), "confined": dict(told)} if 1 < pid <= _MAX_PID:
            confined = _confined(told)
            if descriptors == len(VIEW) + confined.counted:
                return NewWorker(pid, confined)
    raise Malformed(f"a fork server gave no answer: {packet!r:.200}")


#: Characters of a reason: they must fit into a packet.
_MAX_REASON = 512
_MAX_PORT = 65535


def _short(confined: Confined) -> Confined:
    return confined._replace(lacking=confined.lacking and confined.lacking[:_MAX_REASON])


def _confined(told: dict[str, Any]) -> Confined:
    match told:
        case {
            "landlock": int(landlock),
            "seccomp": bool(seccomp),
            "counted": bool(counted),
            "lacking": str() | None as lacking,
        } if type(landlock) is int and landlock >= 0:
            return Confined(landlock, seccomp, counted, lacking)
    raise Malformed(f"a fork server told of no confinement: {told!r:.200}")


def _packet(packet: bytes) -> Any:
    try:
        return unpack(packet, max_message=MAX_PACKET)
    except TooLarge as error:
        raise Malformed(error.message) from error
