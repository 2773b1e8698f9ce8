"""The protocol between the daemon and its fork server.

One MessagePack map per packet on a SOCK_SEQPACKET pair, file descriptors beside it (SCM_RIGHTS).
The server says hello once, {problem, confined}: why it could not preload, or nil, and what
restricts it (`Confined`). A request is a `ForkRequest`, with two descriptors: the worker's channel,
and what its stdout and stderr write to. The answer is {error}, or {pid, confined} once the worker
is confined, with the descriptors of `VIEW`, and then that of its seccomp filter's listener if
`confined.counted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from whatsappd.engines.confined import AUTO, OFF, REQUIRED, Confined
from whatsappd.errors import Malformed, TooLarge, WorkerFailed
from whatsappd.wire.frames import pack, unpack

#: The largest packet of the fork server's channel, in bytes: a request holds some paths.
MAX_PACKET = 32 * 1024
#: The descriptors that come with a request.
DESCRIPTORS = 2
#: What a worker hands to the daemon of itself, opened: /proc/self/NAME (proc(5)).
VIEW = ("smaps_rollup", "fd", "status")
#: The most descriptors that come with an answer.
ANSWER_DESCRIPTORS = len(VIEW) + 1


class ForkRequest(NamedTuple):
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


class ForkedWorker(NamedTuple):
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


def parse_request(packet: bytes, descriptors: int) -> ForkRequest:
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
            return ForkRequest(company, directory, ports, apart, confinement)
    raise Malformed(f"no request for a worker: {packet!r:.200} with {descriptors} descriptors")


def pack_forked_worker(worker: ForkedWorker) -> bytes:
    return pack({"pid": worker.pid, "confined": _short(worker.confined).as_wire()})


def parse_forked_worker(packet: bytes, descriptors: int) -> ForkedWorker:
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
                return ForkedWorker(pid, confined)
    raise Malformed(f"a fork server gave no answer: {packet!r:.200}")


#: PID_MAX_LIMIT of the kernel.
_MAX_PID = 1 << 22
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
