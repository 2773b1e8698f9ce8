"""Engines and workers of the `engines.port`, whose answers a test writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

import trio

from whatsappd.engines.decode import WorkerEvent
from whatsappd.engines.port import (
    AttemptEvidence,
    EngineStatus,
    EngineWorker,
    KernelView,
    OnEvents,
    OnRefusedCall,
)
from whatsappd.engines.protocol import (
    AddressesFound,
    ClientEvent,
    ClientHealth,
    MessageSent,
    SendFate,
    SendRefusal,
    as_map,
)
from whatsappd.engines.worker_process import _first_of
from whatsappd.errors import WorkerFailed
from whatsappd.model.content import Sendable

#: What becomes of attempt number N, from 1: it is acknowledged, refused, or an error is raised.
Script = Callable[[int], Awaitable[SendRefusal | None]]

PASSING = SendRefusal(SendFate.PASSING, "not sent: try again later")
PERMANENT = SendRefusal(SendFate.PERMANENT, "nobody has this address")
UNKNOWN = SendRefusal(SendFate.UNKNOWN, "nobody knows whether it was sent")
RESTRICTED = SendRefusal(SendFate.RESTRICTED, "no strangers for now", 463)


async def acknowledge_all(_number: int) -> None:
    """Every attempt is acknowledged."""


class FakeWorker:
    """An `EngineWorker` that is connected; attempts to send go as `script` has it."""

    pid = 4711
    started_at_ms = 0
    view: KernelView | None = None
    resolver: object | None = None
    refused_calls: Mapping[str, int] = {}
    is_held_up = False
    crash: str | None = None
    broken: str | None = None

    def __init__(
        self, script: Script = acknowledge_all, brings: Sequence[ClientEvent] = ()
    ) -> None:
        self.script = script
        self.brings = brings  # when it is opened
        self.sent: list[str] = []
        self.is_gone = False
        self._opened = trio.Event()
        self._ended = trio.Event()

    async def run(self, on_events: OnEvents) -> str:
        async def bring() -> None:
            await self._opened.wait()
            await on_events([WorkerEvent("acme", event, as_map(event)) for event in self.brings])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bring)
            await self._ended.wait()
            nursery.cancel_scope.cancel()
        return "exit code 0"

    async def open(self, *, taken: int, log_level: str) -> None:
        self._opened.set()

    async def send(
        self,
        to: str,
        content: Sendable,
        secret: bytes,
        *,
        patience_s: float,
        slow_s: float,
        if_slow: Callable[[], Awaitable[object]],
    ) -> MessageSent | SendRefusal | None:
        """As the real one: slow answers are waited for together with `if_slow`."""
        self.sent.append(content.short_text)
        number = len(self.sent)
        answered = False
        refusal: SendRefusal | None = None

        async def answer() -> None:
            nonlocal answered, refusal
            refusal = await self.script(number)
            answered = True

        with trio.move_on_after(slow_s) as quick:
            await answer()
        if quick.cancelled_caught:
            await _first_of(answer, if_slow)
            if not answered:
                return None
        return refusal or MessageSent(f"M{number}", number)

    async def look_up(self, address: str) -> AddressesFound:
        return AddressesFound({address: address}, {})

    async def health(self) -> ClientHealth:
        return ClientHealth(connected=True, logged_in=True)

    async def log_out(self) -> None: ...

    async def confirm(self, number: int) -> None: ...

    async def shut_down(self, grace: float) -> None:
        self.kill()

    def kill(self) -> None:
        self.is_gone = True
        self._ended.set()


class FakeEngine:
    """An `Engine` that gives these workers, one after the other, and knows of no attempt."""

    def __init__(self, *workers: FakeWorker, status: EngineStatus | None = None) -> None:
        self.status = status or EngineStatus(is_ready=True)
        self.workers = [*workers]

    async def run(self) -> None:
        await trio.sleep_forever()

    async def start_worker(
        self, company: str, directory: Path, on_refused_call: OnRefusedCall
    ) -> EngineWorker:
        if not self.workers:
            raise WorkerFailed("there are no more workers in this test")
        return self.workers.pop(0)

    async def find_attempts(
        self, directory: Path, secrets: Collection[bytes], *, jid: str | None
    ) -> AttemptEvidence:
        return AttemptEvidence({}, proves_absence=False)

    def give_up(self) -> None: ...
