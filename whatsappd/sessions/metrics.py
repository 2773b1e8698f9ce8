"""The metrics of sessions: their states, and counters since the daemon started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from whatsappd.engines.protocol import EventKind
from whatsappd.metric import COUNTER, GAUGE, Metric, Metrics, Sample
from whatsappd.model.session import SessionState
from whatsappd.rules.session_health import Judgement
from whatsappd.sessions.counters import SessionCounters

_COMPANY = ("company",)


class MeasuredSession(Protocol):
    """What is read of a `sessions.session.CompanySession`. Times are epoch milliseconds."""

    @property
    def company(self) -> str: ...
    @property
    def state(self) -> SessionState: ...
    @property
    def wanted(self) -> bool: ...
    @property
    def counters(self) -> SessionCounters: ...
    @property
    def last_error_ms(self) -> int | None: ...
    @property
    def last_inbound_ms(self) -> int | None: ...
    def judgement(self) -> Judgement: ...


class MeasuredPacing(Protocol):
    """What is read of a `sessions.pacing.Pacing`."""

    @property
    def company(self) -> str: ...
    @property
    def paused_until_ms(self) -> int | None: ...


def _own(
    value: Callable[[MeasuredSession], float | None],
) -> Callable[[MeasuredSession], Iterable[Sample]]:
    """A figure that has the company as its only label. None: there is no value just now."""

    def samples(session: MeasuredSession) -> Iterator[Sample]:
        found = value(session)
        if found is not None:
            yield Sample((session.company,), found)

    return samples


def _arrived(kind: EventKind) -> Callable[[MeasuredSession], Iterable[Sample]]:
    return _own(lambda session: session.counters.inbound.get(kind, 0))


def _seconds(time_ms: int | None) -> float | None:
    return None if time_ms is None else time_ms / 1000


def _by_state(sessions: Sequence[MeasuredSession]) -> Iterator[Sample]:
    states = [session.state for session in sessions]
    for state in SessionState:
        yield Sample((str(state),), states.count(state))


def _health_checks(session: MeasuredSession) -> Iterator[Sample]:
    yield Sample((session.company, "ok"), session.counters.health_ok)
    yield Sample((session.company, "failed"), session.counters.health_failed)


def _restarts(session: MeasuredSession) -> Iterator[Sample]:
    for cause, count in session.counters.restarts.items():
        yield Sample((session.company, str(cause)), count)


def _refused_calls(session: MeasuredSession) -> Iterator[Sample]:
    for call, count in session.counters.refused_calls.items():
        yield Sample((session.company, call), count)


#: Of all sessions together.
SESSIONS: Metrics[Sequence[MeasuredSession]] = (
    Metric("whatsappd_sessions", GAUGE, "Sessions by state.", ("state",), _by_state),
)

#: Of each session.
SESSION: Metrics[MeasuredSession] = (
    Metric(
        "whatsappd_session_state", GAUGE,
        "1 for the state that a session is in; its other states have no sample.",
        ("company", "state"),
        lambda session: [Sample((session.company, str(session.state)), 1)],
    ),
    Metric(
        "whatsappd_session_connected", GAUGE, "Whether a session is connected (1) or not (0).",
        _COMPANY, _own(lambda session: int(session.state is SessionState.CONNECTED)),
    ),
    Metric(
        "whatsappd_session_wanted", GAUGE, "Whether a session should be running (1) or not (0).",
        _COMPANY, _own(lambda session: int(session.wanted)),
    ),
    Metric(
        "whatsappd_session_healthy", GAUGE,
        "Whether nothing needs doing about a session (1), or something does (0).",
        _COMPANY, _own(lambda session: int(session.judgement().ok)),
    ),
    Metric(
        "whatsappd_session_health_checks_total", COUNTER, "Health checks by their result.",
        ("company", "result"), _health_checks,
    ),
    Metric(
        "whatsappd_session_connections_total", COUNTER,
        "Successful logins to WhatsApp, reconnections included.",
        _COMPANY, _own(lambda session: session.counters.connections),
    ),
    Metric(
        "whatsappd_session_reconnections_total", COUNTER,
        "Logins after a lost connection, by the same worker.",
        _COMPANY, _own(lambda session: session.counters.reconnections),
    ),
    Metric(
        "whatsappd_worker_restarts_total", COUNTER,
        "Workers that ended, or were ended, to be started again, by cause.",
        ("company", "cause"), _restarts,
    ),
    Metric(
        "whatsappd_session_errors_total", COUNTER, "What went wrong in a session, all told.",
        _COMPANY, _own(lambda session: session.counters.errors),
    ),
    Metric(
        "whatsappd_session_last_error_timestamp_seconds", GAUGE,
        "When something last went wrong in a session, in Unix time.",
        _COMPANY, _own(lambda session: _seconds(session.last_error_ms)),
    ),
    Metric(
        "whatsappd_session_last_inbound_timestamp_seconds", GAUGE,
        "When a message or a receipt last arrived, in Unix time.",
        _COMPANY, _own(lambda session: _seconds(session.last_inbound_ms)),
    ),
    Metric(
        "whatsappd_session_qr_codes_total", COUNTER, "QR codes shown for linking.",
        _COMPANY, _own(lambda session: session.counters.qr_codes),
    ),
    Metric(
        "whatsappd_worker_refused_calls_total", COUNTER,
        "System calls that a company's workers were refused, by name. A sound worker makes none.",
        ("company", "call"), _refused_calls,
    ),
)  # fmt: skip

#: What arrived in each session.
INBOUND: Metrics[MeasuredSession] = (
    Metric(
        "whatsappd_messages_received_total", COUNTER, "Messages that arrived.",
        _COMPANY, _arrived(EventKind.MESSAGE),
    ),
    Metric(
        "whatsappd_messages_undecryptable_total", COUNTER,
        "Messages that arrived and could not be decrypted (yet: their senders are asked again).",
        _COMPANY, _arrived(EventKind.UNDECRYPTABLE),
    ),
    Metric(
        "whatsappd_events_unreadable_total", COUNTER,
        "Messages, receipts and news of a worker's that arrived and could not be taken over: too "
        "deep, damaged, or unlike anything that is known. The log and `last_error` say which.",
        _COMPANY, _arrived(EventKind.UNREADABLE),
    ),
    Metric(
        "whatsappd_receipts_received_total", COUNTER, "Receipts that arrived.",
        _COMPANY, _arrived(EventKind.RECEIPT),
    ),
    Metric(
        "whatsappd_limiter_waits_total", COUNTER,
        "Times that a company's messages had to wait because of its limits.",
        _COMPANY, _own(lambda session: session.counters.limiter_waits),
    ),
    Metric(
        "whatsappd_limiter_wait_seconds_total", COUNTER,
        "Time that a company's messages had to wait because of its limits.",
        _COMPANY, _own(lambda session: session.counters.limiter_wait_s),
    ),
)  # fmt: skip

#: How each company may send just now.
PACING: Metrics[MeasuredPacing] = (
    Metric(
        "whatsappd_outreach_paused", GAUGE,
        "Whether first messages to strangers are paused because WhatsApp restricts them (1, 0).",
        _COMPANY,
        lambda pacing: [Sample((pacing.company,), int(pacing.paused_until_ms is not None))],
    ),
)  # fmt: skip
