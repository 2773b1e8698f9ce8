"""`daemon.limits`: the table of bounds (`rules.bounds`), and who holds how much of each.

`whatsappctl limits` shows it. Callers who may not read all companies see the bounds, and what they
hold themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from whatsappd.api import limits as api
from whatsappd.api.declaration import Done, NoParams, plain
from whatsappd.handlers.access import AccessControl
from whatsappd.rpc.method import Call, Method, Notifier
from whatsappd.rules.bounds import (
    BOUNDS,
    CONSUMERS,
    DEAD_LETTER_BYTES,
    DEAD_LETTERS,
    PACES,
    REPORTED,
    WEBHOOKS,
    Bound,
    report,
)
from whatsappd.store.port import DaemonStore

#: What reports some of the bounds: see `Places.report`.
Reporter = Callable[[], list[dict[str, Any]]]


class LimitsApi:
    """
    Args:
        reporters: each reports some of the bounds.
    """

    def __init__(
        self, access: AccessControl, store: DaemonStore, reporters: Sequence[Reporter]
    ) -> None:
        self._access = access
        self._store = store
        self._reporters = reporters
        self._reported: tuple[Notifier, dict[str, dict[str, Any]]] | None = None

    def methods(self) -> list[Method]:
        return [
            Method(api.REPORT, self._take_report),
            Method(api.LIMITS, self._limits),
        ]

    def _take_report(self, call: Call, params: api.ReportBounds) -> Done:
        bounds = {each.name: plain(each) for each in params.bounds}
        self._reported = call.connection, bounds
        return Done()

    async def _limits(self, call: Call, _params: NoParams) -> api.BoundsInfo:
        found: dict[str, dict[str, Any]] = {}
        if self._reported is not None and not self._reported[0].closed:
            found.update(self._reported[1])
        found |= {each["name"]: each for reporter in self._reporters for each in reporter()}
        letters = await self._store.webhooks.count_dead_letters()
        counted = {
            CONSUMERS: await self._store.consumers.count_by_owner(),
            WEBHOOKS: await self._store.webhooks.count_by_owner(),
            DEAD_LETTERS: {f"webhook:{each}": count for each, (count, _) in letters.items()},
            DEAD_LETTER_BYTES: {f"webhook:{each}": size for each, (_, size) in letters.items()},
        }
        for bound, counts in counted.items():
            found[bound.name] = _counted(bound, counts)
        bounds = [found.get(bound.name) or report(bound, None, [], None) for bound in BOUNDS]
        if self._access.readable(call, "daemon.limits") is not None:
            own = call.actor or f"uid:{call.peer.uid}"
            for each in bounds:
                each["held"] = each["refused"] = None
                each["holders"] = [who for who in each["holders"] if who["holder"] == own]
        return api.BoundsInfo(
            bounds=[_shown(each) for each in bounds],
            paces=[api.PaceInfo(**pace._asdict()) for pace in PACES],
        )


def _shown(line: dict[str, Any]) -> api.BoundInfo:
    holders = [api.BoundHolder(**each) for each in line["holders"][:REPORTED]]
    return api.BoundInfo(**{**line, "holders": holders})


def _counted(bound: Bound, counts: dict[str, int]) -> dict[str, Any]:
    return report(bound, sum(counts.values()), Counter(counts).most_common(), None)
