"""What the daemon knows of an engine: whatever connects companies to WhatsApp, in processes.

`sessions`, `handlers` and `monitoring` see these contracts and the values of `engines.protocol`
alone; `app` makes the engine (`engines.neonize.engine`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from whatsappd.engines.confined import AUTO, Confined
from whatsappd.engines.decode import WorkerEvent
from whatsappd.engines.protocol import AddressesFound, ClientHealth, MessageSent, SendRefusal
from whatsappd.model.content import Sendable

OnEvents = Callable[[list[WorkerEvent]], Awaitable[None]]
#: Told the name of each system call that a worker is refused.
OnRefusedCall = Callable[[str], None]

#: HTTPS, and names that do not fit into a UDP packet.
WHATSAPP_PORTS = frozenset({443, 53})


class WhatsAppAccess(NamedTuple):
    """How workers reach WhatsApp: directly, or the sandbox in its place."""

    proxy: str | None = None  # socks5:// or http:// URL
    noise_root: bytes | None = None  # replaces WhatsApp's key in the workers' memory (sandbox only)
    ports: frozenset[int] = WHATSAPP_PORTS  # TCP ports that workers may connect to


class KernelView(Protocol):
    """What the kernel tells about a worker's process. May be read from threads."""

    def smaps_rollup(self) -> bytes | None:
        """As in proc(5); None if the process is gone."""
        ...

    def count_descriptors(self) -> int | None:
        """How many it has open; None if the process is gone."""
        ...

    def count_threads(self) -> int | None:
        """None if the process is gone."""
        ...


class EngineWorker(Protocol):
    """A worker process, and the client in it. `run` must be running for calls to be answered.

    Calls raise:
        WorkerFailed: the worker refused, with its reason.
        WorkerGone: it went away before it answered; whether it acted is unknown.
    """

    @property
    def pid(self) -> int: ...

    @property
    def started_at_ms(self) -> int:
        """By `clock.steady_ms`."""
        ...

    @property
    def view(self) -> KernelView | None: ...

    @property
    def resolver(self) -> object | None:
        """The resolver's file that it can read (`confinement.resolver`); None: any."""
        ...

    @property
    def refused_calls(self) -> Mapping[str, int]:
        """System calls that it was refused, by name."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether its channel has ended; `run` tells how the process did."""
        ...

    @property
    def is_held_up(self) -> bool:
        """Whether what it brought is being taken just now: its answers wait behind that."""
        ...

    @property
    def crash(self) -> str | None:
        """The library's own words for why it ended the process, if it did."""
        ...

    @property
    def broken(self) -> str | None:
        """What it said that no worker says, if that is why it was ended."""
        ...

    async def run(self, on_events: OnEvents) -> object:
        """Give `on_events` what it brings until the process has ended; how it ended, as text.

        Cancelled, or after an error of `on_events`, it ends the process, which has a moment to save
        what it brought and nobody took.
        """
        ...

    async def open(self, *, taken: int, log_level: str) -> None:
        """Make the client and let it connect. `taken`: the last event that is on disk."""
        ...

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
        """Send a message to a JID. `secret` identifies the attempt: see `Engine.find_attempts`.

        Args:
            if_slow: called when there is no answer after `slow_s`. If it returns before there is
                one, the answer is forgotten, and the result is None.

        Raises:
            TimedOut: it did not answer within `patience_s`.
        """
        ...

    async def look_up(self, address: str) -> AddressesFound:
        """Which account is behind a JID, if there is one."""
        ...

    async def health(self) -> ClientHealth:
        """How the connection to WhatsApp is."""
        ...

    async def log_out(self) -> None:
        """Unlink the device at WhatsApp."""
        ...

    async def confirm(self, number: int) -> None:
        """Its events from WhatsApp up to `number` are on disk."""
        ...

    async def shut_down(self, grace: float) -> None:
        """Let the client disconnect for at most `grace` seconds, then end the process."""
        ...

    def kill(self) -> None: ...


class AttemptEvidence(NamedTuple):
    """What an account's own database tells about some attempts to send.

    `message_ids` by secret. `proves_absence`: an attempt that is missing there never left; if it
    does not prove that, `why_not` says why.
    """

    message_ids: dict[bytes, str]
    proves_absence: bool
    why_not: str = "the account was unlinked meanwhile"


class EngineStatus(NamedTuple):
    """How what makes the workers is. `problem`: why it works less well than it could."""

    pid: int | None = None
    is_ready: bool = False
    restarts: int = 0
    problem: str | None = None
    confinement: str = AUTO  # what is wanted of it
    confined: Confined | None = None  # what is in force; None: not known yet

    @property
    def filters_calls(self) -> bool:
        """Whether workers' system calls are filtered, as far as is known."""
        return self.confined is not None and self.confined.seccomp


class Engine(Protocol):
    """Starts workers, and knows what their files tell. `run` must be running."""

    @property
    def status(self) -> EngineStatus: ...

    async def run(self) -> None:
        """Be able to start workers, until cancelled."""
        ...

    async def start_worker(
        self, company: str, directory: Path, on_refused_call: OnRefusedCall
    ) -> EngineWorker:
        """A new process for `company`, whose `directory` exists. Whoever asks must `run` it.

        Raises:
            WorkerFailed: no process could be made, or it could not be confined.
        """
        ...

    async def find_attempts(
        self, directory: Path, secrets: Collection[bytes], *, jid: str | None
    ) -> AttemptEvidence:
        """What became of attempts to send, by the account's database.

        Args:
            jid: the linked device's, at the time of the attempts; None: there is none any more.

        Raises:
            StoreFailed: the database cannot be read; nothing is known then.
        """
        ...

    def give_up(self) -> None:
        """End at once, for the daemon's end: whoever waits for a worker is told there is none."""
        ...
