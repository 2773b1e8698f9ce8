"""What those say who were asked: the daemon, its fork server, and Redis."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import hostile
import msgpack
import trio
import trio.testing
from hypothesis import strategies as st
from redis_answers import answering
from structlog.testing import capture_logs
from targets import Target, refusing
from wire_targets import messages, streams

from whatsappctl.batch_lines import BatchLine
from whatsappctl.batch_sender import BatchSender, LineOutcome
from whatsappctl.connection import BlockingConnection
from whatsappctl.event_stream import subscribe
from whatsappctl.interrupts import Interrupts
from whatsappd.engines.confined import AUTO, Confined
from whatsappd.engines.neonize.fork.messages import ForkRequest, pack_hello, parse_request
from whatsappd.engines.neonize.spawn import Confinement, ForkServer
from whatsappd.errors import Malformed, WhatsappdError, WorkerFailed, error_from_wire
from whatsappd.model.event import Event
from whatsappd.rpc.client import open_client
from whatsappd.wire.frames import READ_SIZE

# --- the daemon to its clients ----------------------------------------------------------------

errors = st.one_of(
    hostile.values,
    st.fixed_dictionaries(
        {"name": st.sampled_from(("denied", "invalid_params")) | hostile.scalars},
        optional={
            "message": hostile.scalars,
            "data": hostile.values
            | st.dictionaries(
                st.sampled_from(("message", "self", "field", "code")), hostile.scalars
            ),
        },
    ),
)


def check_error(value: Any) -> None:
    """An error of a newer (or a broken) daemon is still one of ours."""
    error = error_from_wire(value)
    assert isinstance(error, WhatsappdError)
    assert isinstance(error.message, str)


answers = st.one_of(
    streams,
    st.lists(
        st.one_of(
            st.tuples(st.just(1), st.just(1), st.none() | errors, hostile.values).map(list),
            st.tuples(
                st.just(2), st.sampled_from(("event", "error", "x")), st.lists(errors, max_size=2)
            ).map(list),
            messages,
        ),
        max_size=3,
    ).map(lambda each: b"".join(map(msgpack.packb, each))),
)


@cache
def _listener() -> tuple[socket.socket, str, tempfile.TemporaryDirectory[str]]:
    directory = tempfile.TemporaryDirectory(prefix="wf-")
    path = os.fspath(Path(directory.name) / "s")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    return listening, path, directory


def check_answers(data: bytes) -> None:
    """Whatever the daemon says, its client's caller gets an answer or one of our errors."""
    listening, path, _ = _listener()
    connection = BlockingConnection(path, deadline=5)
    daemon, _ = listening.accept()
    with daemon:
        daemon.sendall(data[:READ_SIZE])
        daemon.shutdown(socket.SHUT_WR)
        try:
            connection.call("daemon.hello", {}, deadline=5)
            for _ in _notifications(connection):
                pass
        except WhatsappdError as error:
            assert error.message or data
        finally:
            connection.close()


def _notifications(connection: BlockingConnection) -> Iterator[tuple[str, dict[str, Any]]]:
    while True:
        yield connection.notification(deadline=5)


ROW = {"id": "00aa", "company": "acme", "state": "queued", "key": "k", "created_ms": 1}
EVENT = {"seq": 1, "time_ms": 1, "company": "acme", "type": "alert", "data": {}}


def changed(right: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """`right`, or with one of its members missing or something else."""
    name = st.sampled_from(list(right))
    return st.one_of(
        st.just(right),
        name.map(lambda gone: {key: each for key, each in right.items() if key != gone}),
        st.builds(lambda key, each: {**right, key: each}, name, hostile.values),
    )


def said(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Some messages of these kinds, and streams of all kinds."""
    some = st.lists(st.one_of(*kinds), max_size=4)
    return streams | some.map(lambda each: b"".join(map(msgpack.packb, each)))


def check_answers_in_trio(data: bytes) -> None:
    """As `check_answers`: whoever waits, for answers or for notifications, waits no longer."""
    trio.run(_ask_in_trio, data)


async def _ask_in_trio(data: bytes) -> None:
    listening, path, _ = _listener()
    ended = 0
    async with open_client(path) as client:
        daemon, _ = listening.accept()

        async def call() -> None:
            nonlocal ended
            with suppress(WhatsappdError):
                await client.call("daemon.hello")
            ended += 1

        with daemon, trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
                daemon.sendall(data[:READ_SIZE])
                daemon.shutdown(socket.SHUT_WR)
                async for notice in client.notifications:
                    assert isinstance(notice.method, str)
        assert ended == 3
        with suppress(WhatsappdError):
            await client.call("daemon.hello")
            raise AssertionError("a lost connection was asked")


def check_events(data: bytes) -> None:
    """Whoever follows the log gets events, or one of our errors."""
    path = _speaker().says(data)
    with suppress(WhatsappdError):
        deadlines: Any = {"companies": None, "types": None, "consumer": None, "deadline": 5}
        with subscribe(path, after=0, **deadlines) as stream:
            while True:
                event = stream.next(deadline=5)
                assert isinstance(event, Event)
                assert isinstance(event.seq, int)


def check_batch_answers(data: bytes) -> None:
    """Each line of a batch has one end at the most, and all of it ends in time."""
    path = _speaker().says(data)
    lines = [
        BatchLine(
            number, ("acme", str(number)), {"company": "acme", "to": "+15550100", "text": "x"}
        )
        for number in range(3)
    ]
    told: list[LineOutcome] = []
    interrupts = Interrupts()
    interrupts.wake.setblocking(False)
    with closing(interrupts.wake), closing(interrupts._signalled):
        sender = BatchSender(
            path, iter(lines), report=told.append, notice=len, interrupts=interrupts, deadline=0.02
        )
        with suppress(WhatsappdError):
            sender.run()
    assert len({outcome.line.number for outcome in told}) == len(told) <= 3
    assert sender.in_doubt <= 3 - len(told)
    for outcome in told:
        assert (outcome.row is None) != (outcome.error is None)
        assert outcome.row is None or isinstance(outcome.row["id"], str)


class Speaker:
    """A daemon that says the same to everybody who connects, and hangs up."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="wf-")
        self._path = os.fspath(Path(self._directory.name) / "s")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self._path)
        self._listening.listen()
        self._words = b""
        threading.Thread(target=self._speak, daemon=True).start()

    def says(self, words: bytes) -> str:
        """Where it says `words` from now on."""
        self._words = words[:READ_SIZE]
        return self._path

    def _speak(self) -> None:
        while True:
            client, _ = self._listening.accept()
            with client, suppress(OSError):
                client.recv(READ_SIZE)  # the request comes first
                client.sendall(self._words)
                client.shutdown(socket.SHUT_WR)


@cache
def _speaker() -> Speaker:
    return Speaker()


followed = said(
    st.tuples(
        st.just(1),
        st.just(1),
        st.none(),
        changed({"subscription": 1, "gap": None}) | hostile.values,
    ),
    st.tuples(
        st.just(2),
        st.sampled_from(("event", "event", "events.gap")),
        st.tuples(
            st.fixed_dictionaries(
                {"subscription": st.just(1)},
                optional={"event": changed(EVENT), "first_seq": hostile.scalars},
            )
        ),
    ),
    messages,
)
batch_answers = said(
    st.tuples(st.just(1), st.integers(0, 5), st.none(), changed(ROW) | hostile.values),
    st.tuples(st.just(1), st.integers(1, 3), errors, st.none()),
    st.tuples(st.just(2), st.just("error"), st.tuples(errors)),
    messages,
)

# --- a fork server to the daemon, and the daemon to it ----------------------------------------

HELLO = pack_hello(None, Confined())
PIDS = st.sampled_from((0, 1, -1, os.getpid(), os.getppid(), 2**22, 2**31, 2**63, True, "1"))
packets = st.one_of(
    streams,
    st.fixed_dictionaries(
        {},
        optional={
            "problem": st.none() | hostile.values,
            "pid": PIDS | hostile.scalars,
            "error": hostile.values,
            "company": hostile.ids | hostile.values,
            "directory": st.just("/") | hostile.values,
            "ports": st.lists(st.just(443) | hostile.scalars, max_size=3) | hostile.values,
            "apart": st.lists(st.just("/") | hostile.scalars, max_size=3) | hostile.values,
            "confinement": st.just(AUTO) | hostile.values,
            "confined": st.just(Confined().as_wire()) | hostile.values,
        },
    ).map(msgpack.packb),
    st.none() | st.just(HELLO),
)


class Killed:
    """In the place of a fork server's process."""

    pid = 2**22

    def __init__(self) -> None:
        self.killed = 0

    def kill(self) -> None:
        self.killed += 1


def check_fork_server(given: tuple[bytes | None, bytes | None]) -> None:
    """No words of a fork server make a worker of what is none; it is ended when it says nonsense.

    None: it closes its end.
    """
    trio.run(_ask_fork_server, *given)


async def _ask_fork_server(hello: bytes | None, answer: bytes | None) -> None:
    fork_server = ForkServer(environment={}, confinement=Confinement(Path("/"), []))
    process: Any = Killed()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control = trio.socket.from_stdlib_socket(ours)
    with theirs, control, capture_logs(), trio.fail_after(5):
        _send_packet(theirs, hello)
        fork_server._process = process
        await fork_server._introduce(control, process)
        if fork_server._control is None:
            # Nothing at all is an end, which the process itself tells of.
            assert process.killed or not hello
            return
        assert fork_server.problem is None or isinstance(fork_server.problem, str)
        _send_packet(theirs, answer)
        try:
            await fork_server.spawn("acme", directory=Path("/"), ports=())
        except WorkerFailed as error:
            assert error.message
        else:
            raise AssertionError("it was taken for a worker")


def _send_packet(theirs: socket.socket, packet: bytes | None) -> None:
    if packet is None:
        theirs.shutdown(socket.SHUT_WR)
    else:
        theirs.send(packet[:8000])


def check_request(given: tuple[bytes, int]) -> None:
    """What a fork server is asked: a worker, with its two descriptors, or nothing."""
    with refusing(Malformed):
        request = parse_request(*given)
        assert isinstance(request, ForkRequest)
        assert all(isinstance(each, int) and 0 <= each < 2**16 for each in request.ports)
        assert given[1] == 2


# --- Redis ------------------------------------------------------------------------------------

replies = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**64).map(lambda number: b":%d\r\n" % number),
        st.sampled_from(
            (b":0\r\n", b":60000\r\n", b":60001\r\n", b"_\r\n", b"$-1\r\n", b"*-1\r\n", b"#t\r\n",
             b",nan\r\n", b",-inf\r\n", b"(999999999999999999999\r\n", b"+OK\r\n", b"-ERR no\r\n",
             b"-NOSCRIPT x\r\n", b"-MOVED 1 x:1\r\n", b"!5\r\nERR x\r\n", b"=5\r\ntxt:a\r\n",
             b":\r\n", b"$5\r\nab\r\n", b"$99999999999\r\n", b"*99999999\r\n", b"%1\r\n")
        ),
        st.binary(max_size=20).map(lambda data: b"$%d\r\n%b\r\n" % (len(data), data)),
    ),
    lambda inner: st.lists(inner, max_size=3).map(
        lambda each: b"*%d\r\n%b" % (len(each), b"".join(each))
    ),
    max_leaves=5,
)  # fmt: skip
COMMANDS = (b"EVALSHA", b"EVALSHA", b"HELLO", b"PING")


def check_redis(data: bytes) -> None:
    """Whatever Redis says, sending goes on within the limit; the first byte says to what."""
    if data:
        trio.run(_limit_by, COMMANDS[data[0] % len(COMMANDS)], data[1:])


async def _limit_by(command: bytes, reply: bytes) -> None:
    from whatsappd.limits import redis
    from whatsappd.limits.port import LimitKey

    key = LimitKey("acme", 3, 60_000)
    with mock.patch.object(redis, "TIMEOUT_S", 0.2), trio.fail_after(10):
        async with (
            answering({command: reply}, hang_up=True) as url,
            redis.open_redis_limiter(url) as limiter,
        ):
            passed = 0
            for number in range(6):
                wait = await limiter.acquire([key], 1000 + number)
                assert type(wait) is int
                assert 0 <= wait <= 60_000
                passed += wait == 0
            assert passed <= 3
            assert limiter._backlog_size == sum(map(len, limiter._backlog.values())) <= passed
            assert passed or limiter.health.trouble is None


class Answers(NamedTuple):
    hello: bytes | None
    answer: bytes | None


ANSWERS = b"".join(
    msgpack.packb(each)
    for each in (
        [1, 1, {"code": 202, "name": "denied", "message": "no", "data": {"a": 1}}, None],
        [2, "event", [{"subscription": 1, "event": EVENT}]],
        [2, "error", [{"name": "stopping", "message": "it stops", "data": {}}]],
    )
)
EVENTS = b"".join(
    msgpack.packb(each)
    for each in (
        [1, 1, None, {"subscription": 1, "gap": None}],
        [2, "event", [{"subscription": 1, "event": EVENT}]],
        [2, "events.gap", [{"subscription": 1, "first_seq": 5}]],
    )
)
TARGETS = [
    Target("the daemon's errors", errors, check_error),
    Target("the daemon's answers", answers, check_answers, (ANSWERS,)),
    Target("the daemon's answers in trio", answers, check_answers_in_trio, (ANSWERS,)),
    Target("events to a follower", followed, check_events, (EVENTS,)),
    Target("answers to a batch", batch_answers, check_batch_answers),
    Target(
        "a fork server's words",
        st.builds(Answers, packets | st.just(HELLO), packets),
        check_fork_server,
    ),
    Target(
        "requests to a fork server",
        st.tuples(packets.filter(bool), st.integers(0, 3)),
        check_request,
    ),
    Target(
        "Redis' answers",
        hostile.damaged(
            st.tuples(st.sampled_from((b"\0", b"\0", b"\2", b"\3")), replies).map(b"".join)
        ),
        check_redis,
        (b"\0:0\r\n", b"\0*1\r\n$1\r\na\r\n", b"\2%1\r\n+proto\r\n:3\r\n"),
    ),
]
