"""The interface of an engine, which connects companies to WhatsApp in worker processes.

`sessions`, `handlers` and `monitoring` use only these contracts and the values of
`engines.protocol`; `app` makes the engine (`engines.neonize.engine`).
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
        """Whether its channel has closed. `run` returns how the process ended."""
        ...

    @property
    def is_held_up(self) -> bool:
        """Whether the daemon is still taking its events, behind which its answers wait."""
        ...

    @property
    def crash(self) -> str | None:
        """The library's own words for why it ended the process, if it did."""
        ...

    @property
    def broken(self) -> str | None:
        """What it sent that is not allowed, if that is why it was ended."""
        ...

    async def run(self, on_events: OnEvents) -> object:
        """Give its events to `on_events` until the process has ended.

        If this is cancelled, or `on_events` raises, the process is ended; it has a moment to save
        the events that were not taken.

        Returns:
            How the process ended; `str` of it is for people.
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
        """Tell it that its events from WhatsApp up to `number` are on disk."""
        ...

    async def shut_down(self, grace: float) -> None:
        """Let the client disconnect for at most `grace` seconds, then end the process."""
        ...

    def kill(self) -> None: ...


class AttemptEvidence(NamedTuple):
    """What an account's own database says about some attempts to send.

    Attributes:
        message_ids: WhatsApp's message ids, by the attempts' secrets.
        proves_absence: whether an attempt without an id was certainly not sent.
        why_not: why absence proves nothing, if so.
    """

    message_ids: dict[bytes, str]
    proves_absence: bool
    why_not: str = "the account was unlinked meanwhile"


class EngineStatus(NamedTuple):
    """The state of the engine. `problem` says why it is slower than it should be, if so."""

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
    """Starts workers, and reads their files. `run` must be running."""

    @property
    def status(self) -> EngineStatus: ...

    async def run(self) -> None:
        """Be able to start workers, until cancelled."""
        ...

    async def start_worker(
        self, company: str, directory: Path, on_refused_call: OnRefusedCall
    ) -> EngineWorker:
        """Start a process for `company`, whose `directory` exists. The caller must `run` it.

        Raises:
            WorkerFailed: no process could be made, or it could not be confined.
        """
        ...

    async def find_attempts(
        self, directory: Path, secrets: Collection[bytes], *, jid: str | None
    ) -> AttemptEvidence:
        """Ask the account's database what became of attempts to send.

        Args:
            jid: the linked device's, at the time of the attempts; None: there is none any more.

        Raises:
            StoreFailed: the database cannot be read; nothing is known then.
        """
        ...

    def give_up(self) -> None:
        """End at once, at the daemon's end. Callers of `start_worker` get WorkerFailed."""
        ...
