"""What goes wrong in the chaos tests: a seeded script of mishaps, and how long each was felt."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import trio
from chaos import Parties
from clocks import WallClock
from daemons import PATIENCE, Daemon, RunningSandbox

from whatsappd.errors import Unreachable

#: The daemon's wall clock is set, by up to ten years, and back again.
CLOCK_JUMP = "clock_jump"
#: The farthest it is set, in days.
FARTHEST_JUMP = 3650
#: Kinds that leave sessions connected.
UNFELT = {
    *("kill_fork_server", "delay_acks", "lose_acks"),
    *("freeze_daemon", "freeze_worker", "freeze_fork_server", "full_disk", CLOCK_JUMP),
}
#: Seconds within which somebody who was chosen to lose an ack sends something.
SENDS_WITHIN = 10


class Mishap(NamedTuple):
    """One that happened. `company`: whom it hit; None: everybody."""

    kind: str
    time_ms: int
    company: str | None


class Victim(NamedTuple):
    company: str
    phone: str
    worker_pid: int


class Mishaps:
    """The script: what goes wrong, when, and to whom. The seed decides all of it."""

    def __init__(
        self,
        daemon: Daemon,
        sandbox: RunningSandbox,
        people: Parties,
        clock: WallClock,
        *,
        seed: int,
        longest: float,
    ) -> None:
        self.done: list[Mishap] = []
        #: Seconds until another fork server was begun, each time; it then imports the library.
        self.fork_server_away: list[float] = []
        self._chance = random.Random(seed)
        self._daemon = daemon
        self._sandbox = sandbox
        self._people = people
        self._clock = clock  # the daemon's
        self._longest = longest  # of a freeze, a delay or a refusal, in seconds

    @property
    def counts(self) -> Counter[str]:
        return Counter(mishap.kind for mishap in self.done)

    @property
    def killed(self) -> set[str]:
        """Companies whose worker was killed, or perhaps: one that is frozen counts as hung."""
        ends = ("kill", "freeze_worker")
        return {m.company for m in self.done if m.company and any(end in m.kind for end in ends)}

    def _deck(self) -> list[Callable[[], Awaitable[None]]]:
        """Shuffled, so that each kind has its turn also in a short run."""
        deck = [
            *[self._kill_worker] * 3,
            self._kill_daemon,
            self._kill_fork_server,
            self._drop,
            self._freeze,
            self._refuse_dials,
            self._delay_acks,
            self._lose_ack_and_drop,
            self._lose_ack_and_kill,
            self._freeze_daemon,
            self._freeze_worker,
            self._freeze_fork_server,
            self._full_disk,
            self._clock_jump,
        ]
        self._chance.shuffle(deck)
        return deck

    async def run(self, *, seconds: float, every: float) -> None:
        """One after the other, for `seconds` and until each kind had its turn."""
        ends = trio.current_time() + seconds
        deck = self._deck()
        is_first = True
        while is_first or trio.current_time() < ends:
            await trio.sleep(every * (0.5 + self._chance.random()))
            await deck.pop()()
            if not deck:
                deck = self._deck()
                is_first = False

    async def lose_acks(self, count: int, seconds: float) -> None:
        """Acks that are lost while nobody dies: whatsmeow itself gives up, after 75 s."""
        for _ in range(count):
            await trio.sleep(seconds / (count + 1))
            victim = await self._somebody()
            await self._sandbox.fault("lose_acks", phone=victim.phone, count=1)
            self._note("lose_acks", victim.company)

    def _note(self, kind: str, company: str | None) -> None:
        self.done.append(Mishap(kind, int(time.time() * 1000), company))

    async def _somebody(self) -> Victim:
        """Whom chance chose, or the next one of the ring who is connected."""
        names = [*self._people.companies]
        first = self._chance.randrange(len(names))
        with trio.fail_after(PATIENCE):
            while True:
                sessions: list[dict[str, Any]] = []
                with suppress(Unreachable):  # another mishap is that the daemon is just killed
                    sessions = (await self._call("session.list"))["sessions"]
                up = {
                    each["company"]: each["worker_pid"]
                    for each in sessions
                    if each["state"] == "connected"
                }
                for name in [*names[first:], *names[:first]]:
                    if name in up:
                        return Victim(name, self._people.companies[name], up[name])
                await trio.sleep(0.05)

    def _some_seconds(self) -> float:
        return 0.2 + self._chance.random() * self._longest

    async def _kill_worker(self) -> None:
        victim = await self._somebody()
        self._kill("kill_worker", victim)

    def _kill(self, kind: str, victim: Victim) -> None:
        self._note(kind, victim.company)
        with suppress(ProcessLookupError):  # it ended by itself since, of an earlier mishap
            os.kill(victim.worker_pid, signal.SIGKILL)

    async def _kill_daemon(self) -> None:
        self._note("kill_daemon", None)
        await self._daemon.stop(signal.SIGKILL)
        await self._daemon.start()

    async def _kill_fork_server(self) -> None:
        killed = await self._fork_server()
        began = trio.current_time()
        os.kill(killed, signal.SIGKILL)
        self._note("kill_fork_server", None)
        await self._fork_server(other_than=killed)
        self.fork_server_away.append(trio.current_time() - began)

    async def _freeze_daemon(self) -> None:
        self._note("freeze_daemon", None)
        await self._frozen(self._daemon.pid)

    async def _freeze_worker(self) -> None:
        victim = await self._somebody()
        self._note("freeze_worker", victim.company)
        await self._frozen(victim.worker_pid)

    async def _freeze_fork_server(self) -> None:
        pid = await self._fork_server()
        self._note("freeze_fork_server", None)
        await self._frozen(pid)

    async def _frozen(self, pid: int) -> None:
        """Stop a process for a while; whatever becomes of it meanwhile, it is let go on."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                await trio.sleep(self._some_seconds())
            finally:
                os.kill(pid, signal.SIGCONT)

    async def _full_disk(self) -> None:
        """The daemon can write nothing for a while: not to its database, not to its log."""
        self._note("full_disk", None)
        pid = self._daemon.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
        try:
            await trio.sleep(self._some_seconds())
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    async def _clock_jump(self) -> None:
        """The daemon's wall clock is years ahead or behind for a while."""
        self._note(CLOCK_JUMP, None)
        self._clock.set_off(days=self._chance.uniform(-FARTHEST_JUMP, FARTHEST_JUMP))
        try:
            await trio.sleep(self._some_seconds())
        finally:
            self._clock.set_off(days=0)

    async def _fork_server(self, *, other_than: int | None = None) -> int:
        with trio.fail_after(PATIENCE):
            while True:
                pid = (await self._call("daemon.status"))["fork_server"]["pid"]
                if pid not in (None, other_than):
                    return int(pid)
                await trio.sleep(0.01)

    async def _drop(self) -> None:
        victim = await self._somebody()
        self._note("drop", victim.company)
        await self._sandbox.fault("drop", phone=victim.phone)

    async def _freeze(self) -> None:
        victim = await self._somebody()
        self._note("freeze", victim.company)
        await self._sandbox.fault(
            "freeze", phone=victim.phone, seconds=self._some_seconds(), cut=True
        )

    async def _refuse_dials(self) -> None:
        """A connection is cut, and nobody gets a new one for a while."""
        victim = await self._somebody()
        mode = self._chance.choice(["close", "503"])
        await self._sandbox.fault("refuse_dials", seconds=self._some_seconds(), mode=mode)
        self._note("refuse_dials", victim.company)
        await self._sandbox.fault("drop", phone=victim.phone)

    async def _delay_acks(self) -> None:
        victim = await self._somebody()
        self._note("delay_acks", victim.company)
        await self._sandbox.fault(
            "delay_acks", phone=victim.phone, seconds=self._some_seconds(), count=3
        )

    async def _lose_ack_and_drop(self) -> None:
        """WhatsApp takes a message, and the connection is cut before its sender could know."""
        victim = await self._somebody()
        async with self._lost_ack(victim):
            self._note("lose_ack_and_drop", victim.company)
            await self._sandbox.fault("drop", phone=victim.phone)

    async def _lose_ack_and_kill(self) -> None:
        """WhatsApp takes a message, and its sender dies before it could know."""
        victim = await self._somebody()
        async with self._lost_ack(victim):
            self._kill("lose_ack_and_kill", victim)

    @asynccontextmanager
    async def _lost_ack(self, victim: Victim) -> AsyncIterator[None]:
        """Within, an ack is lost, or nobody was sending just now."""
        before = (await self._sandbox.stats())["acks_withheld"]
        await self._sandbox.fault("lose_acks", phone=victim.phone, count=1)
        with trio.move_on_after(SENDS_WITHIN) as patience:
            while (await self._sandbox.stats())["acks_withheld"] == before:
                await trio.sleep(0.02)
        if patience.cancelled_caught:
            await self._sandbox.fault("clear")  # later it would meet somebody who lives
        yield

    async def _call(self, method: str, **arguments: Any) -> Any:
        async with self._daemon.client() as client:
            return await client.call(method, **arguments)


def recoveries(mishaps: list[Mishap], events: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Seconds from each mishap until whom it hit was connected again, by kind.

    Of one that hit everybody, until the last of them was. Whoever was hit again before that is left
    out: the time would not be this mishap's. So is whoever was not up before the clock was set,
    because events bear the time of that clock.

    Args:
        events: of the companies' daemon, in the log's order.
    """
    changes: defaultdict[str, list[tuple[int, bool]]] = defaultdict(list)
    for event in events:
        if event["type"] == "session.state":
            is_up = event["data"]["state"] == "connected"
            changes[event["company"]].append((event["time_ms"], is_up))
    felt = [mishap for mishap in mishaps if mishap.kind not in UNFELT]
    disturbing = [mishap for mishap in mishaps if mishap in felt or mishap.kind == CLOCK_JUMP]
    found: defaultdict[str, list[float]] = defaultdict(list)
    for mishap in felt:
        ends = []
        for company in changes if mishap.company is None else [mishap.company]:
            hits = [each.time_ms for each in disturbing if each.company in (None, company)]
            end = _up_again(mishap.time_ms, changes[company])
            if end is not None and not any(mishap.time_ms < hit < end for hit in hits):
                ends.append(end)
        if ends:
            found[mishap.kind].append((max(ends) - mishap.time_ms) / 1000)
    return dict(found)


def _up_again(time_ms: int, changes: Iterable[tuple[int, bool]]) -> int | None:
    """When a session that went down at that time, or later, was up again."""
    later: Iterator[tuple[int, bool]] = (change for change in changes if change[0] >= time_ms)
    if all(is_up for _, is_up in later):  # and so `later` is behind the first that is not
        return None
    return next((at for at, is_up in later if is_up), None)
