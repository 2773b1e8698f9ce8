"""How much one caller may hold: every bound in one table, and the two ways to enforce one.

A *place* is something that is held for a while and given back: a connection, a byte of a queue.
`Places` counts them by holder. A *pace* is how often something may happen: `Pace` counts that.
Without such bounds one caller takes what all share; without the kept places, root could not even
connect to find out who it is.

How to add a bound:

1. Add a line to the table below: a name, what is counted, how many.
2. Make one `Places(THAT_BOUND)` (or `Pace`) where the thing is made, and `take` before it is made.
   Call `give` in a `finally`, or use `place`, which does both.
3. Pass the `Places` on to whoever shows them (`handlers.limits` in the daemon).

The caller is told by the raised error: "uid 1001 holds 512 of 512 connections: ...". Nothing else
is needed: `whatsappctl limits` reads the same table.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from whatsappd.errors import InvalidParams, QueueFull, TooManyRequests, WhatsappdError

#: Holders that a `Pace` remembers. Whoever was heard of longest ago is forgotten first.
MAX_PACED = 10_000
#: Holders that a report names: those that hold most.
REPORTED = 5


class Bound(NamedTuple):
    """One line of the table.

    Args:
        name: stable; programs see it.
        what: the things that are counted, in the plural.
        each: the most that one holder has.
        all: the most that all together have.
        kept: of `all`, those that only root and the daemon's own user can have.
        remedy: what the caller can do, in words.
        names_others: whether a refusal may tell a caller who else holds much. Users of one host
            see each other anyway; API keys of different companies must not.
        error: what is raised, and `field`: the parameter that it is about, if it is about one.
    """

    name: str
    what: str
    each: int
    all: int
    kept: int
    remedy: str
    names_others: bool = True
    error: type[WhatsappdError] = TooManyRequests
    field: str | None = None


class Holder(NamedTuple):
    """Who holds something: `uid:1001`, `key:ID`, `company:acme`, `webhook:ID`, `address:192.0.2.1`.

    Args:
        is_capped: whether `Bound.each` is for this one. It is not for root, the daemon's own user,
            and the gateway, which serves many and bounds each of them itself.
        may_use_kept: whether the kept places are for this one: root and the daemon's own user.
    """

    name: str
    is_capped: bool = True
    may_use_kept: bool = False

    @property
    def shown(self) -> str:
        """For people: `uid 1001`."""
        return self.name.replace(":", " ", 1)


_MIB = 1024 * 1024
_GIB = 1024 * _MIB

# --- the daemon's socket ------------------------------------------------------------------------

CONNECTIONS = Bound(
    "connections", "connections to the daemon", 512, 2048, 64,
    "close some, or send several requests over one",
)  # fmt: skip
UNFINISHED_BYTES = Bound(
    "unfinished_bytes", "bytes of messages that are not whole yet", 8 * _MIB, 32 * _MIB, 4 * _MIB,
    "send whole messages, not many halves at a time",
)  # fmt: skip
UNSENT_BYTES = Bound(
    "unsent_bytes", "bytes that wait to be read", 32 * _MIB, 256 * _MIB, 32 * _MIB,
    "read what the daemon sends",
)  # fmt: skip
WAITING_CALLS = Bound(
    "waiting_calls", "calls that wait for their answer", 512, 8192, 512,
    "read some answers before calling more",
)  # fmt: skip
SUBSCRIPTIONS = Bound(
    "subscriptions", "subscriptions to events", 256, 4096, 64,
    "end some, or follow several companies with one",
)  # fmt: skip

BACKUPS = Bound(
    "backups", "backups under way", 1, 3, 1, "wait until one of them has ended",
)  # fmt: skip

# --- what is kept on disk -----------------------------------------------------------------------

CONSUMERS = Bound(
    "consumers", "consumers of events", 100, 10_000, 1000,
    "forget those that nobody uses (`whatsappctl events forget NAME`)",
    error=InvalidParams, field="consumer",
)  # fmt: skip
WEBHOOKS = Bound(
    "webhooks", "webhooks", 25, 100, 25, "remove those that nobody needs", names_others=False,
    error=InvalidParams, field="url",
)  # fmt: skip

# Of one webhook each. When they are full nothing is thrown away: the webhook waits.
_DEAD_REMEDY = "resend or discard some (`whatsappctl webhooks dead ID` shows them)"
DEAD_LETTERS = Bound(
    "dead_letters", "dead letters", 10_000, 1_000_000, 100_000, _DEAD_REMEDY, names_others=False,
    error=QueueFull,
)  # fmt: skip
DEAD_LETTER_BYTES = Bound(
    "dead_letter_bytes", "bytes of dead letters", 128 * _MIB, 4 * _GIB, _GIB, _DEAD_REMEDY,
    names_others=False, error=QueueFull,
)  # fmt: skip

COMPANY_BYTES = Bound(
    "company_bytes", "bytes of messages that wait or were given up", 512 * _MIB, 16 * _GIB, 0,
    "send or cancel less; what was given up is deleted when it is old enough "
    "(`retention.messages_max_age`)",
    names_others=False, error=QueueFull,
)  # fmt: skip
CALLER_BYTES = Bound(
    "caller_bytes", "bytes of messages that wait or were given up", 128 * _MIB, 16 * _GIB, _GIB,
    "send or cancel less; what was given up is deleted when it is old enough "
    "(`retention.messages_max_age`)",
    names_others=False, error=QueueFull,
)  # fmt: skip

# --- the gateway --------------------------------------------------------------------------------

HTTP_CONNECTIONS = Bound(
    "http_connections", "connections to the gateway", 512, 2048, 0,
    "close some, or send several requests over one", names_others=False,
)  # fmt: skip
HTTP_REQUESTS = Bound(
    "http_requests", "requests under way", 128, 512, 0,
    "wait for some answers before asking more", names_others=False,
)  # fmt: skip
STREAMS = Bound(
    "streams", "event streams", 200, 1500, 100,
    "close some, or follow several companies with one", names_others=False,
)  # fmt: skip
COMPANY_STREAMS = Bound(
    "company_streams", "event streams of keys that are bound to it", 400, 1500, 0,
    "close some", names_others=False,
)  # fmt: skip

#: The whole table, for those who show it.
BOUNDS: tuple[Bound, ...] = (
    CONNECTIONS,
    UNFINISHED_BYTES,
    UNSENT_BYTES,
    WAITING_CALLS,
    SUBSCRIPTIONS,
    BACKUPS,
    CONSUMERS,
    WEBHOOKS,
    DEAD_LETTERS,
    DEAD_LETTER_BYTES,
    COMPANY_BYTES,
    CALLER_BYTES,
    HTTP_CONNECTIONS,
    HTTP_REQUESTS,
    STREAMS,
    COMPANY_STREAMS,
)  # fmt: skip


def check_room(
    bound: Bound,
    holder: Holder,
    held: int,
    total: int,
    amount: int = 1,
    *,
    holders: Counter[str] | None = None,
) -> None:
    """Check that `holder`, who has `held` of `total`, may have `amount` more.

    For what is counted elsewhere, such as rows of a table; `Places` counts by itself.

    Args:
        holders: how much each holder has, so that the refusal can name who holds most.

    Raises:
        TooManyRequests: no (or what `Bound.error` names). `data` has the numbers.
    """
    if holder.is_capped and held + amount > bound.each:
        raise _refusal(
            bound,
            holder,
            held,
            f"{holder.shown} holds {held} of {bound.each} {bound.what}: {bound.remedy}",
            limit=bound.each,
        )
    room = bound.all if holder.may_use_kept else bound.all - bound.kept
    if total + amount > room:
        told = [f"{holder.shown} holds {held}"]
        if holders and bound.names_others:
            [(name, most)] = holders.most_common(1)
            told.append(f"{Holder(name).shown} holds most, {most}")
        if bound.kept and not holder.may_use_kept:
            told.append(f"{bound.kept} more are kept for root and the daemon's own user")
        raise _refusal(
            bound,
            holder,
            held,
            f"all callers together hold {total} of {room} {bound.what} ({'; '.join(told)}): "
            f"try again later, or {bound.remedy}",
            total=total,
            limit=room,
        )


def _refusal(
    bound: Bound, holder: Holder, held: int, message: str, **numbers: int
) -> WhatsappdError:
    data: dict[str, Any] = {"bound": bound.name, "holder": holder.name, "held": held, **numbers}
    if bound.field is not None:
        data["field"], message = bound.field, f"{bound.field}: {message}"
    return bound.error(message, **data)


class Places:
    """Who holds how much of one thing. Costs a microsecond for each change."""

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self.total = 0
        #: How often somebody was refused.
        self.refused = 0
        self._held: Counter[str] = Counter()

    def held(self, holder: Holder) -> int:
        return self._held[holder.name]

    def take(self, holder: Holder, amount: int = 1) -> None:
        """Count `amount` more for `holder`, to be given back with `give`.

        Raises:
            TooManyRequests: there is no room; nothing was counted. See `check_room`.
        """
        held = self._held[holder.name]
        try:
            check_room(self.bound, holder, held, self.total, amount, holders=self._held)
        except WhatsappdError:
            self.refused += 1
            raise
        self._held[holder.name] = held + amount
        self.total += amount

    def give(self, holder: Holder, amount: int = 1) -> None:
        """What `take` counted is free again."""
        left = self._held[holder.name] - amount
        assert left >= 0
        self.total -= amount
        if left:
            self._held[holder.name] = left
        else:
            del self._held[holder.name]

    @contextmanager
    def place(self, holder: Holder, amount: int = 1) -> Iterator[None]:
        """Held inside the `with` block. Raises as `take` does."""
        self.take(holder, amount)
        try:
            yield
        finally:
            self.give(holder, amount)

    def report(self) -> dict[str, Any]:
        """The bound and who holds how much of it, those first that hold most."""
        return report(self.bound, self.total, self._held.most_common(), self.refused)

    def reports(self) -> list[dict[str, Any]]:
        """`report`, where several are expected."""
        return [self.report()]


def report(
    bound: Bound, total: int | None, holders: list[tuple[str, int]], refused: int | None
) -> dict[str, Any]:
    """One line of `daemon.limits`. None: only another process knows, or nobody counts it."""
    return {
        "name": bound.name,
        "what": bound.what,
        "each": bound.each,
        "all": bound.all,
        "kept": bound.kept,
        "held": total,
        "holders": [{"holder": name, "held": held} for name, held in holders],
        "refused": refused,
    }


class PaceBound(NamedTuple):
    """How often something may happen for one holder: `burst` at once, then `per_second`."""

    name: str
    what: str
    burst: int
    per_second: float


#: Calls that access rules or keys refuse. Beyond it the daemon reads less from that user.
DENIALS = PaceBound("denials", "denied calls", 50, 20.0)
#: Lines of the audit trail about calls that failed. Beyond it they are counted into one line.
FAILED_LINES = PaceBound("failed_audit_lines", "audit lines of failed calls", 30, 0.5)
#: Lines of the log about refused requests from one address. Beyond it they are counted.
REFUSAL_LINES = PaceBound("refusal_log_lines", "log lines of refused requests", 20, 0.5)

#: The same of all addresses together: a stranger may have many.
ALL_REFUSAL_LINES = PaceBound("all_refusal_log_lines", "log lines of refused requests", 100, 5.0)
#: Lines of the log about one method's defects, with a traceback each; and about those of all.
DEFECT_LINES = PaceBound("defect_log_lines", "log lines of failed methods", 20, 0.2)
ALL_DEFECT_LINES = PaceBound("all_defect_log_lines", "log lines of failed methods", 100, 1.0)
#: What one company's worker prints, in bytes. Beyond it lines are dropped, and counted.
WORKER_OUTPUT = PaceBound("worker_output", "bytes of a worker's log lines", 1 << 20, 65_536.0)
#: What one company's worker tells of its session: states, QR codes. Beyond it, it is read slower.
WORKER_NEWS = PaceBound("worker_news", "news of a worker about its session", 200, 10.0)

PACES: tuple[PaceBound, ...] = (
    DENIALS,
    FAILED_LINES,
    REFUSAL_LINES,
    ALL_REFUSAL_LINES,
    DEFECT_LINES,
    ALL_DEFECT_LINES,
    WORKER_OUTPUT,
    WORKER_NEWS,
)


class Pace:
    """How often something happened lately, by holder (a token bucket for each).

    `now` is in seconds, of any clock that never goes back.
    """

    def __init__(self, bound: PaceBound) -> None:
        self.bound = bound
        # (when, how far the bucket was emptied then)
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, holder: str, now: float) -> float:
        """Count one more for `holder`; the seconds to wait so that the pace is kept (0: none)."""
        when, used = self._used.pop(holder, (now, 0.0))
        used = max(0.0, used - (now - when) * self.bound.per_second) + 1
        self._used[holder] = now, used
        if len(self._used) > MAX_PACED:
            self._used.popitem(last=False)
        return max(0.0, used - self.bound.burst) / self.bound.per_second

    def allows(self, holder: str, now: float, amount: float = 1.0) -> bool:
        """Count `amount` more if that is within the pace; whether it was."""
        when, used = self._used.pop(holder, (now, 0.0))
        used = max(0.0, used - (now - when) * self.bound.per_second)
        is_allowed = used + amount <= self.bound.burst
        self._used[holder] = now, used + amount * is_allowed
        if len(self._used) > MAX_PACED:
            self._used.popitem(last=False)
        return is_allowed
