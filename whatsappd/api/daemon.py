"""`daemon.*`: who answers, how it is, its figures, and a backup of all it keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from whatsappd.api.declaration import Concerns, Declaration, NoParams, Params, Result
from whatsappd.api.sessions import SessionInfo
from whatsappd.api.types import TimeMs

#: Of the methods' names and meanings. Additions do not change it.
PROTOCOL = 1


class ConfigureDaemon(Params):
    """What to change until the next reload or start."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        Meta(description="What is logged from now on."),
    ] = None


class BackUp(Params):
    """What the backup is to hold."""

    accounts: Annotated[
        bool, Meta(description="Also the companies' accounts, in a tar archive.")
    ] = False


class ReadMetrics(Params):
    """In which form the figures are wanted."""

    gzip: Annotated[
        bool, Meta(description="Compressed: with many companies they do not fit otherwise.")
    ] = False


class Hello(Result):
    """Who answers, and what it can do."""

    name: str
    version: str
    protocol: Annotated[
        int, Meta(description="Of the methods' names and meanings; additions do not change it.")
    ]
    events: Annotated[int, Meta(description="The form of the events' data.")]
    pid: int
    mode: Annotated[str, Meta(description="`real` or `sandbox`.")]
    methods: Annotated[list[str], Meta(description="What can be called.")]
    started_ms: TimeMs


class DaemonSettings(Result):
    """Values in force now."""

    log_level: str


class ForkServerInfo(Result):
    """The process that makes workers."""

    pid: int | None
    restarts: int
    problem: Annotated[str | None, Meta(description="Why preloading failed, if it did.")]


class ConfinementInfo(Result):
    """What restricts workers: in full, or what is lacking."""

    wanted: Annotated[str, Meta(description="As it was configured.")]
    landlock: Annotated[int, Meta(description="Landlock's version; 0: no files are refused.")]
    seccomp: Annotated[bool, Meta(description="Whether system calls are refused.")]
    counted: Annotated[bool, Meta(description="Whether those refused can be counted.")]
    lacking: Annotated[str | None, Meta(description="What is not in force, and why.")]
    known: Annotated[bool, Meta(description="False before the first worker.")]


class SandboxPlace(Result):
    """How to reach a sandbox."""

    host: str
    port: int
    ca_file: str
    noise_root: Annotated[str, Meta(description="The root key of its certificates, in hex.")]
    control: Annotated[str | None, Meta(description="The Unix socket of its RPC.")] = None


class DaemonStatus(Result):
    """The whole picture. What is null is told to those only who may look at all companies."""

    version: str
    pid: int
    mode: Annotated[str, Meta(description="`real` or `sandbox`.")]
    state_dir: str | None
    socket: str
    started_ms: TimeMs
    connections: int | None
    last_seq: Annotated[int, Meta(description="The newest event of the log.")]
    fork_server: ForkServerInfo | None
    confinement: ConfinementInfo | None
    sandbox: Annotated[
        SandboxPlace | None, Meta(description="In sandbox mode: how to reach the sandbox.")
    ]
    companies: list[SessionInfo]


class HealthCheck(Result):
    """One part of the daemon: how it is, and what to do if it is not well."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


class SessionCheck(Result):
    """One session: how it is, and what to do if it is not well."""

    ok: bool
    wanted: bool
    state: str
    detail: str
    remedy: str | None
    checked_ms: Annotated[
        TimeMs | None, Meta(description="When its worker was last asked; null: not yet.")
    ]
    answered_ms: Annotated[
        int | None, Meta(description="Milliseconds that the worker took to answer.")
    ]
    failures: Annotated[int, Meta(description="Checks in a row that found it not well.")]


class Health(Result):
    """Whether all is well, and what to do if it is not."""

    healthy: bool
    checks: list[HealthCheck]
    sessions: Annotated[dict[str, SessionCheck], Meta(description="By company.")]


class Metrics(Result):
    """All figures, as Prometheus text: `text`, or with `gzip` the same compressed as `body`."""

    content_type: str
    text: str | UnsetType = UNSET
    content_encoding: str | UnsetType = UNSET
    body: bytes | UnsetType = UNSET


class BackupTaken(Result):
    """What was sent. What does not fit it is no backup."""

    backup: Annotated[int, Meta(description="The number in all notifications with its data.")]
    bytes: int
    sha256: str
    companies: Annotated[list[str], Meta(description="Whose accounts are in it.")]
    left_out: Annotated[
        dict[str, str],
        Meta(description="Companies whose accounts could not be copied, with the reasons."),
    ]


HELLO = Declaration(
    "daemon.hello", NoParams, Hello, "Versions, and what can be called.",
    writes=False, concerns=Concerns.NONE,
)  # fmt: skip
CONFIGURE = Declaration(
    "daemon.configure", ConfigureDaemon, DaemonSettings,
    "Change a setting until the next reload or start.",
    writes=True, concerns=Concerns.ALL,
)  # fmt: skip
STATUS = Declaration(
    "daemon.status", NoParams, DaemonStatus, "The whole picture.",
    writes=False, concerns=Concerns.SEVERAL,
)  # fmt: skip
HEALTH = Declaration(
    "daemon.health", NoParams, Health, "Whether all is well, and what to do.",
    writes=False, concerns=Concerns.SEVERAL,
)  # fmt: skip
METRICS = Declaration(
    "daemon.metrics", ReadMetrics, Metrics, "All figures, as Prometheus text.",
    writes=False, concerns=Concerns.SEVERAL,
)  # fmt: skip
# It holds everybody's messages, and with accounts their keys.
BACKUP = Declaration(
    "daemon.backup",
    BackUp,
    BackupTaken,
    """All that is kept, as bytes.

    A consistent copy, made while everything goes on. The bytes come before the answer, as
    notifications `backup.data {backup, data}`, in order. They are the database (SQLite), or with
    `accounts` a tar archive of it and the companies' accounts.

    A caller that reads slowly holds up nothing; one that reads nothing is dropped.
    """,
    writes=True,
    concerns=Concerns.ALL,
)

METHODS = (HELLO, CONFIGURE, STATUS, HEALTH, METRICS, BACKUP)
