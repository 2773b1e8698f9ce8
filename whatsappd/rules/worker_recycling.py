"""When a worker uses so much memory, descriptors or threads that a new one should replace it.

neonize and Go hardly give back what they once took, and any of their versions may leak. The one
remedy that always works is a new process. `monitoring.worker_recycler` asks here in every round of
health checks; `sessions.session` replaces the worker between two messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

#: Of all workers, so many (and one) are recycled in a round: the others go on meanwhile.
_ONE_IN = 20


class RecycleLimits(Protocol):
    """What a worker may use; 0: as much as it likes. `monitoring.settings` has it."""

    @property
    def memory(self) -> int: ...  # bytes that are its own
    @property
    def descriptors(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def rest_ms(self) -> int: ...  # one that is younger is left alone


class WorkerUse(NamedTuple):
    """What one worker uses; None: unknown."""

    age_ms: int  # since it was started
    memory: int | None
    descriptors: int | None
    threads: int | None
    outdated: str | None = None  # why it has to go, whatever it uses and however young it is


def excess(use: WorkerUse, limits: RecycleLimits) -> str | None:
    """Why a worker should be replaced, in words; None if it should stay."""
    if use.outdated is not None:
        return use.outdated
    if use.age_ms < limits.rest_ms:
        return None
    found = [
        (used / limit, words)
        for used, limit, words in (
            (use.memory, limits.memory, f"{(use.memory or 0) / 1e6:.0f} MB of memory"),
            (use.descriptors, limits.descriptors, f"{use.descriptors} descriptors"),
            (use.threads, limits.threads, f"{use.threads} threads"),
        )
        if used is not None and limit and used > limit
    ]
    return max(found)[1] if found else None


def choose(uses: Mapping[str, WorkerUse], limits: RecycleLimits) -> Mapping[str, str]:
    """The companies whose workers are to be recycled now, and why.

    Not many at once: workers that were started together also grow together. The oldest come first,
    so that each has its turn, also where limits are so low that all are over them.
    """
    found = {company: words for company, use in uses.items() if (words := excess(use, limits))}
    most = 1 + len(uses) // _ONE_IN
    oldest = sorted(found, key=lambda company: (-uses[company].age_ms, company))[:most]
    return {company: found[company] for company in oldest}
