"""Every setting of the daemon, defined once: its name, type, default, range and meaning.

`load` parses and validates with these definitions, `reference` writes the sample file and the
README's table from them. Defaults that another room relies on too (`rules.outreach.SendLimits`,
`sessions.settings`, …) are the same values; a test compares them.

The parts of the daemon are given these values, never the file: nothing below `app` imports this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

from whatsappd.config.kinds import (
    Account,
    Choice,
    Count,
    Duration,
    FilePath,
    Kind,
    Mode,
    RedisUrl,
    Size,
)
from whatsappd.model.access import AccessRule
from whatsappd.model.paths import default_socket, default_state_dir
from whatsappd.working_directory import from_start

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "json", "console")
#: `engines.protocol` has the same words.
CONFINEMENTS = ("auto", "required", "off")

#: The most a send limit can be set to (`rules.outreach.MAX_LIMIT`).
_MAX_LIMIT = 1_000_000


class Setting(NamedTuple):
    """What a field of the classes below is, beside its name, type and default."""

    kind: Kind
    doc: str  # one sentence or two, for the sample and the README
    live: bool = False  # whether a reload applies it; else the daemon must be restarted


class HostDefault(NamedTuple):
    """A default that depends on the host's user, and on whether a sandbox is used."""

    value: Callable[[bool], Path]
    words: str  # for the README


def _state_dir(is_sandboxed: bool) -> Path:
    path = from_start(Path(default_state_dir()))
    return path.with_name(f"{path.name}-sandbox") if is_sandboxed else path


def _socket(_is_sandboxed: bool) -> Path:
    return from_start(Path(default_socket()))


class LimitSettings(NamedTuple):
    """How many messages a company may send. What is over a limit waits in the queue for its turn.

    `session.configure` gives a company limits of its own, which come before these.
    """

    per_company_per_minute: Annotated[
        int,
        Setting(
            Count(0, _MAX_LIMIT), "Messages of one company in any minute. 0: no limit.", live=True
        ),
    ] = 30
    per_phone_per_minute: Annotated[
        int,
        Setting(
            Count(0, _MAX_LIMIT),
            "Messages of one company to the same number in any minute. 0: no limit.",
            live=True,
        ),
    ] = 30
    redis_url: Annotated[
        str,
        Setting(
            RedisUrl(),
            "Keep the windows in this Redis, so that several daemons share them. Empty: in memory. "
            "Redis' own clock counts; a Redis Cluster is not supported. A password may hold any "
            "character, as it is or as %XX. Needs the extra `redis` "
            "(pip install 'whatsappd[redis]').",
        ),
    ] = ""


class OutreachSettings(NamedTuple):
    """Messages to people whom a company never wrote to or heard from.

    WhatsApp bans accounts that write to many strangers, so these have a smaller budget.
    """

    cold_per_hour: Annotated[
        int,
        Setting(
            Count(0, _MAX_LIMIT),
            "First messages of one company in any hour. 0: no limit.",
            live=True,
        ),
    ] = 20
    cold_per_day: Annotated[
        int,
        Setting(
            Count(0, _MAX_LIMIT),
            "First messages of one company in any 24 hours. 0: no limit.",
            live=True,
        ),
    ] = 100


class QueueSettings(NamedTuple):
    """Messages that wait to be sent."""

    limit: Annotated[
        int,
        Setting(
            Count(1, 1_000_000),
            "Messages that may wait per company; more are refused with `queue_full`.",
        ),
    ] = 10_000


class RetentionSettings(NamedTuple):
    """How much history is kept in the state directory."""

    events_max_age: Annotated[
        float,
        Setting(Duration("0s", "36500d"), "Older events are deleted. 0: kept for ever.", live=True),
    ] = 30 * 86_400.0
    events_max_company_bytes: Annotated[
        int,
        Setting(
            Size("0B", "1000TB"),
            "A company's oldest events beyond this size are deleted. 0: no limit.",
            live=True,
        ),
    ] = 256 << 20
    events_max_bytes: Annotated[
        int,
        Setting(
            Size("0B", "1000TB"),
            "The size of the whole log. Beyond it, the oldest events of whichever company has most "
            "are deleted: one with less than its share loses none. 0: no limit.",
            live=True,
        ),
    ] = 1 << 30
    messages_max_age: Annotated[
        float,
        Setting(
            Duration("1h", "36500d"),
            "Messages that were sent, failed, expired or cancelled longer ago are deleted. "
            "Those that wait, or whose fate is uncertain, are not.",
            live=True,
        ),
    ] = 90 * 86_400.0


class SupervisionSettings(NamedTuple):
    """How sessions are started, watched and restarted. The defaults suit nearly everybody."""

    retry_base: Annotated[
        float,
        Setting(Duration("10ms", "1h"), "The longest pause before the first restart; it doubles."),
    ] = 1.0
    retry_cap: Annotated[
        float, Setting(Duration("10ms", "1d"), "The longest pause before any restart.")
    ] = 300.0
    stable_time: Annotated[
        float,
        Setting(Duration("1s", "1d"), "Connected for this long, the pauses begin anew."),
    ] = 60.0
    crash_limit: Annotated[
        int,
        Setting(
            Count(1, 1000),
            "Crashes within `crash_window` that are borne; one more, and the session is `failed`.",
        ),
    ] = 5
    crash_window: Annotated[float, Setting(Duration("10s", "7d"), "See `crash_limit`.")] = 600.0
    health_interval: Annotated[
        float, Setting(Duration("1s", "1h"), "How often each session is asked how it is.")
    ] = 30.0
    health_deadline: Annotated[
        float,
        Setting(Duration("100ms", "10m"), "A worker that answers later than this is replaced."),
    ] = 10.0
    connect_deadline: Annotated[
        float,
        Setting(
            Duration("5s", "1h"),
            "A session that is still connecting after this is started anew.",
        ),
    ] = 60.0
    settle_time: Annotated[
        float,
        Setting(
            Duration("1s", "1h"),
            "How long a session may (re)connect before health counts it as ill.",
        ),
    ] = 180.0
    silence_limit: Annotated[
        float,
        Setting(
            Duration("1s", "1d"),
            "A session that has reconnected in vain for this long gets a new worker.",
        ),
    ] = 600.0
    start_parallel: Annotated[
        int, Setting(Count(1, 1000), "Sessions that are brought back at the same time at boot.")
    ] = 8
    hand_over_grace: Annotated[
        float,
        Setting(
            Duration("0s", "1m"),
            "How long a message on its way to WhatsApp is waited for when its session is stopped.",
        ),
    ] = 3.0
    stop_grace: Annotated[
        float,
        Setting(
            Duration("0s", "1m"), "How long a session may take to disconnect before it is killed."
        ),
    ] = 3.0
    confinement: Annotated[
        str,
        Setting(
            Choice(CONFINEMENTS),
            "Landlock and seccomp keep workers from all that is not theirs. `auto`: as far as the "
            "kernel can; `required`: where it cannot, no worker starts; `off`: not at all.",
        ),
    ] = "auto"
    recycle_memory: Annotated[
        int,
        Setting(
            Size("0B", "1TB"),
            "A worker with more private memory gets a successor, between two messages. 0: no "
            "limit.",
            live=True,
        ),
    ] = 100_000_000
    recycle_descriptors: Annotated[
        int,
        Setting(
            Count(0, 1_000_000),
            "The same for one with more open descriptors. 0: no limit.",
            live=True,
        ),
    ] = 200
    recycle_threads: Annotated[
        int,
        Setting(Count(0, 1_000_000), "The same for one with more threads. 0: no limit.", live=True),
    ] = 100
    recycle_rest: Annotated[
        float,
        Setting(
            Duration("0s", "7d"),
            "A younger worker is left alone, whatever it uses.",
            live=True,
        ),
    ] = 600.0


class AlertSettings(NamedTuple):
    """When an `alert` event is raised. 0 switches one off."""

    session_down_for: Annotated[
        float,
        Setting(
            Duration("0s", "365d"), "A wanted session is not connected for this long.", live=True
        ),
    ] = 300.0
    queue_older_than: Annotated[
        float,
        Setting(Duration("0s", "365d"), "A message waits longer than this.", live=True),
    ] = 600.0
    restarts_per_hour: Annotated[
        int,
        Setting(
            Count(0, 10_000),
            "A session's workers crashed or hung more often in the last hour.",
            live=True,
        ),
    ] = 6
    disk_free_below: Annotated[
        int,
        Setting(
            Size("0B", "1000TB"),
            "The state directory's disk has less free space than this.",
            live=True,
        ),
    ] = 500_000_000


class Settings(NamedTuple):
    """All settings, checked. Durations are in seconds."""

    state_dir: Annotated[
        Path,
        Setting(FilePath(), "Where accounts, messages and events are kept. Mode 0700."),
        HostDefault(
            _state_dir,
            "`/var/lib/whatsappd` for root, `$XDG_STATE_HOME/whatsappd` for users; in sandbox mode "
            "with `-sandbox` at its end",
        ),
    ]
    socket: Annotated[
        Path,
        Setting(
            FilePath(),
            "The Unix socket to listen on, at most 107 bytes. `whatsappctl` does not read this "
            "file: set WHATSAPPD_SOCKET for it.",
        ),
        HostDefault(
            _socket,
            "`/run/whatsappd/whatsappd.sock` for root, `$XDG_RUNTIME_DIR/whatsappd/whatsappd.sock` "
            "for users",
        ),
    ]
    socket_mode: Annotated[
        int,
        Setting(Mode(), "The socket's permissions: who may connect at all."),
    ] = 0o660
    socket_group: Annotated[
        str,
        Setting(Account(), "The group that the socket is given to. Empty: the daemon's own."),
    ] = ""
    log_level: Annotated[
        str,
        Setting(
            Choice(LOG_LEVELS),
            "The least important log lines to write. `daemon.configure` changes it while the "
            "daemon runs.",
            live=True,
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Setting(
            Choice(LOG_FORMATS),
            "`json`: one object a line; `console`: for people; `auto`: console on a terminal, else "
            "json.",
            live=True,
        ),
    ] = "auto"
    limits: LimitSettings = LimitSettings()
    outreach: OutreachSettings = OutreachSettings()
    queue: QueueSettings = QueueSettings()
    retention: RetentionSettings = RetentionSettings()
    sessions: SupervisionSettings = SupervisionSettings()
    alerts: AlertSettings = AlertSettings()
    #: `[[access]]`; see `config.access`.
    access: tuple[AccessRule, ...] = ()
    #: The command line's alone: run a sandbox of our own, or use the one that this file describes.
    sandbox: bool = False
    sandbox_at: Path | None = None

    @property
    def is_sandboxed(self) -> bool:
        return self.sandbox or self.sandbox_at is not None
