"""The health checks of what all sessions rely on: store, fork server, disk, log and so on.

`rules.session_health` judges the sessions themselves. `health_report` makes a report of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from whatsappd.engines.confined import REQUIRED, Confined
from whatsappd.engines.port import EngineStatus
from whatsappd.limits.port import LimiterHealth
from whatsappd.model.webhook import StoredWebhook
from whatsappd.monitoring.kernel import Disk
from whatsappd.rules.alerts import FEW_FILES, AlertThresholds
from whatsappd.rules.session_health import Judgement
from whatsappd.rules.webhook_policy import is_full
from whatsappd.sessions.session import CompanySession
from whatsappd.state_directory import Place
from whatsappd.supervision import Supervised, summary

#: Of the open-file limit; above it, the next thing to be opened may be one too many.
_DESCRIPTORS_USED = 0.9
#: Milliseconds without anybody who delivers webhooks: gateways are upgraded and restarted.
_DELIVERER_AWAY = 180_000


class Check(NamedTuple):
    """One check's result. `detail` says how it is, `remedy` what to do if it is not `ok`."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


class SessionHealth(NamedTuple):
    """One session in a report. Times are epoch milliseconds."""

    company: str
    wanted: bool
    state: str
    judgement: Judgement
    checked_ms: int | None  # when its worker was last asked; None: not yet
    answered_ms: int | None  # how long the worker took to answer
    failures: int  # checks in a row that found it not well


class HealthReport(NamedTuple):
    checks: Sequence[Check]
    sessions: Sequence[SessionHealth]

    @property
    def healthy(self) -> bool:
        return all(check.ok for check in self.checks) and all(
            session.judgement.ok for session in self.sessions
        )


def health_of(session: CompanySession) -> SessionHealth:
    checkup = session.checkups.last
    return SessionHealth(
        company=session.company,
        wanted=session.wanted,
        state=str(session.state),
        judgement=session.judgement(),
        checked_ms=checkup.time_ms if checkup else None,
        answered_ms=checkup.answer.took_ms if checkup else None,
        failures=checkup.failures if checkup else 0,
    )


def check_store(trouble: str | None) -> Check:
    if trouble is None:
        return Check("store", True, "it takes writes")
    return Check(
        "store", False, trouble,
        "make room where the state directory is, or mend its disk; nothing new is accepted "
        "meanwhile, and what was accepted stays",
    )  # fmt: skip


def check_fork_server(engine: EngineStatus) -> Check:
    if engine.pid is None or not engine.is_ready:
        return Check(
            "fork_server", False, "it is being started; running workers live on",
            "wait a moment; if that lasts, the daemon's log has its reasons",
        )  # fmt: skip
    if engine.problem is not None:
        words = f"it works, but slowly: preloading failed ({engine.problem})"
        return Check("fork_server", True, words)
    return Check("fork_server", True, f"pid {engine.pid}")


def check_confinement(engine: EngineStatus, sessions: Sequence[CompanySession]) -> Check:
    """Whether workers are kept from what is not theirs, and whether one tried to get at it."""
    confined = engine.confined
    tried = [session for session in sessions if session.refused_calls]
    if tried:
        calls = Counter(call for session in tried for call in session.refused_calls)
        return Check(
            "confinement", False,
            f"workers were refused what no sound worker asks for ({_some(sorted(calls))}): "
            f"{_some([session.company for session in tried])}",
            "somebody may have taken that worker over: stop the company, unlink it on the phone, "
            "and link it anew; or it is a defect, which `whatsappctl restart` ends for now",
        )  # fmt: skip
    if confined is None:
        return Check("confinement", True, "it is known when the first worker has been made")
    detail = words_for(confined)
    if engine.confinement == REQUIRED and not confined.is_whole:
        return Check(
            "confinement", False, f"{detail}; so no worker is started",
            "use a kernel that has it, or set sessions.confinement to auto",
        )  # fmt: skip
    return Check("confinement", True, detail)


def words_for(confined: Confined) -> str:
    """What restricts workers, for people."""
    parts = [f"Landlock {confined.landlock}"] if confined.landlock else []
    parts += ["seccomp"] if confined.seccomp else []
    words = (
        f"workers are confined by {' and '.join(parts)}" if parts else "workers are NOT confined"
    )
    return f"{words}; lacking: {confined.lacking}" if confined.lacking else words


def check_event_loop(longest_ms: int, thresholds: AlertThresholds) -> Check:
    detail = f"everything waited for at most {longest_ms} ms lately"
    if thresholds.event_loop_delay_ms and longest_ms >= thresholds.event_loop_delay_ms:
        remedy = "the host is overloaded, or the daemon is: look at its load and at the metrics"
        return Check("event_loop", False, detail, remedy)
    return Check("event_loop", True, detail)


def check_disk(
    disk: Disk | None, thresholds: AlertThresholds, store_trouble: str | None = None
) -> Check:
    """Whether there is room. `store_trouble`: what the disk refused the store last."""
    if disk is None:
        return Check(
            "disk", False, "the state directory's disk does not answer", "look at its mount"
        )
    where = f" ({disk.path})" if disk.path else ""
    detail = f"{disk.free >> 20} MiB of {disk.total >> 20} MiB are free{where}"
    if disk.files_free is not None and disk.files_free < FEW_FILES:
        return Check(
            "disk", False, f"{detail}, but only {disk.files_free} more files can be made",
            "delete files that nobody needs, or make a file system with more inodes",
        )  # fmt: skip
    if store_trouble is not None:
        remedy = "see the check of the store: a quota, or a disk that fails"
        return Check("disk", False, f"{detail}, but it refuses writes: {store_trouble}", remedy)
    if disk.free < thresholds.disk_free_bytes:
        remedy = "make room, or keep less history (retention in the configuration)"
        return Check("disk", False, detail, remedy)
    return Check("disk", True, detail)


def check_places(places: Sequence[Place]) -> Check:
    """Whether the files in use are still those that a next daemon would find."""
    for place in places:
        trouble = place.trouble()
        if trouble is not None:
            return Check(
                "state_dir", False, f"{place.path} {trouble}: what is written is lost when the "
                "daemon ends",
                "find out who removes files there; then stop the daemon, restore a backup, and "
                "start it again",
            )  # fmt: skip
    return Check("state_dir", True, "its files are those that the daemon opened")


def check_rounds(are_alive: bool) -> Check:
    if are_alive:
        return Check("rounds", True, "health is checked in rounds, and they end")
    return Check(
        "rounds", False, "the rounds of health checks do not end any more: what is told of the "
        "sessions is old",
        "look at the daemon's log and at its disk; then restart it",
    )  # fmt: skip


def check_descriptors(used: int, limit: int) -> Check:
    detail = f"{used} of {limit} file descriptors are in use"
    if used > limit * _DESCRIPTORS_USED:
        return Check("descriptors", False, detail, "raise LimitNOFILE= in the service's unit")
    return Check("descriptors", True, detail)


def check_log(trouble: str | None, dropped: int) -> Check:
    """Whether what is logged is also written.

    Args:
        dropped: lines since the start that there was no room for meanwhile.
    """
    lost = f"{dropped} of its lines were dropped since the start"
    if trouble is not None:
        return Check(
            "log", False, f"it cannot be written: {trouble}; {lost}",
            "make room, or mend whatever reads the daemon's stderr; all else goes on",
        )  # fmt: skip
    return Check("log", True, lost if dropped else "every line is written")


def check_limiter(health: LimiterHealth) -> Check:
    if health.trouble is None:
        return Check("limiter", True, f"limits are kept in {health.kind}")
    return Check(
        "limiter", False, f"limits are kept in memory, for this daemon alone: {health.trouble}",
        "bring Redis back; the limits are shared again by themselves",
    )  # fmt: skip


def check_tasks(tasks: Sequence[Supervised], companies: frozenset[str] | None) -> Check:
    """Whether the daemon's own tasks run without errors.

    Args:
        companies: those whose tasks are told about; None: all.
    """
    told = [
        task
        for task in tasks
        if task.company is None or companies is None or task.company in companies
    ]
    return Check("tasks", *summary(told))


def check_webhooks(webhooks: Sequence[StoredWebhook] | None, away_ms: int | None) -> Check:
    """Whether every event finds its way to whoever wanted to be told.

    Args:
        webhooks: None: the store does not tell.
        away_ms: for how long nobody has delivered; None: somebody does.
    """
    if webhooks is None:
        return Check(
            "webhooks", False, "the store does not tell how they are",
            "look at the state directory's disk, and into the daemon's log",
        )  # fmt: skip
    enabled = [webhook for webhook in webhooks if webhook.wanted.enabled]
    if not enabled:
        return Check("webhooks", True, "there are none" if not webhooks else "none is enabled")
    if away_ms is not None and away_ms >= _DELIVERER_AWAY:
        return Check(
            "webhooks", False, f"nobody has delivered events for {away_ms // 1000} s",
            "start `whatsappd gateway`: what has happened meanwhile is delivered then",
        )  # fmt: skip
    full = [webhook.id for webhook in enabled if is_full(webhook)]
    if full:
        return Check(
            "webhooks", False, f"full of dead letters, and waiting: {_some(full)}",
            "resend or discard them: `whatsappctl webhooks dead ID`",
        )  # fmt: skip
    paused = [webhook.id for webhook in enabled if webhook.paused_since_ms is not None]
    if paused:
        return Check(
            "webhooks", False,
            f"{len(paused)} of {len(enabled)} have failed for long, and are paused: "
            f"{_some(paused)}",
            "mend the receiver: `whatsappctl webhooks show ID` has its last error; then it goes "
            "on by itself. Or disable the webhook",
        )  # fmt: skip
    dead = sum(webhook.dead_letters for webhook in enabled)
    detail = f"none of {len(enabled)} is paused; they hold {dead} dead letters"
    return Check("webhooks", True, detail)


def check_sessions(sessions: Sequence[SessionHealth]) -> Check:
    wanted = sum(session.wanted for session in sessions)
    ill = [session.company for session in sessions if not session.judgement.ok]
    if not ill:
        return Check("sessions", True, f"all of {wanted} wanted sessions are well")
    return Check(
        "sessions", False, f"{len(ill)} of {wanted} wanted sessions are not well: {_some(ill)}",
        "each has its remedy",
    )  # fmt: skip


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
