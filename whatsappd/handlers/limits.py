"""`daemon.limits`: the table of bounds (`rules.bounds`), and who holds how much of each.

`whatsappctl limits` shows it. Callers who may not look at all companies are told the bounds, and
what they hold themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from whatsappd.api.params import Params
from whatsappd.handlers.access import AccessControl
from whatsappd.rpc.method import Call, Concerns, Method, NoParams, Notifier
from whatsappd.rules.bounds import BOUNDS, CONSUMERS, PACES, REPORTED, WEBHOOKS, Bound, report
from whatsappd.store.sqlite import consumers
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.webhooks import letters_by_webhook

#: What reports some of the bounds: see `Places.report`.
Reporter = Callable[[], list[dict[str, Any]]]


class HeldParam(Params):
    holder: str
    held: int


class BoundParam(Params):
    """See `rules.bounds.report`."""

    name: str
    what: str
    each: int
    all: int
    kept: int
    held: int | None
    holders: Annotated[list[HeldParam], msgspec.Meta(max_length=REPORTED)]
    refused: int | None


class ReportParams(Params):
    bounds: Annotated[list[BoundParam], msgspec.Meta(max_length=len(BOUNDS))]


class LimitsApi:
    """`reporters` grows as parts come to be that hold something."""

    def __init__(self, access: AccessControl, database: Database) -> None:
        self._access = access
        self._database = database
        self.reporters: list[Reporter] = []
        self._reported: tuple[Notifier, dict[str, dict[str, Any]]] | None = None

    def methods(self) -> list[Method]:
        return [
            Method(
                "gateway.report", ReportParams, self._take_report, "What a gateway's callers hold.",
                writes=True, concerns=Concerns.ALL,
            ),
            Method(
                "daemon.limits", NoParams, self._limits, "What callers may hold, and do.",
                writes=False, concerns=Concerns.SEVERAL,
            ),
        ]  # fmt: skip

    def _take_report(self, call: Call, params: ReportParams) -> dict[str, Any]:
        """Kept until the connection ends. With several gateways, the last word counts."""
        bounds = {each.name: msgspec.to_builtins(each) for each in params.bounds}
        self._reported = call.connection, bounds
        return {}

    async def _limits(self, call: Call, _params: NoParams) -> dict[str, Any]:
        """`bounds`: how many each and all may hold, how many are kept for root and the daemon's own
        user, and who holds most. `held` is nil for what the gateway holds, which counts by itself.
        `paces`: how often something may happen."""
        found: dict[str, dict[str, Any]] = {}
        if self._reported is not None and not self._reported[0].closed:
            found.update(self._reported[1])
        found |= {each["name"]: each for reporter in self.reporters for each in reporter()}
        counted = await self._database.read(
            lambda conn: {
                CONSUMERS: consumers.count_by_owner(conn),
                WEBHOOKS: dict(
                    conn.execute(
                        "SELECT coalesce(owner, 'uid:0'), count(*) FROM webhooks GROUP BY owner"
                    ).fetchall()
                ),
                **letters_by_webhook(conn),
            }
        )
        for bound, counts in counted.items():
            found[bound.name] = _counted(bound, counts)
        bounds = [found.get(bound.name) or report(bound, None, [], None) for bound in BOUNDS]
        if self._access.readable(call, "daemon.limits") is not None:
            own = call.actor or f"uid:{call.peer.uid}"
            for each in bounds:
                each["held"] = each["refused"] = None
                each["holders"] = [who for who in each["holders"] if who["holder"] == own]
        for each in bounds:
            del each["holders"][REPORTED:]
        return {"bounds": bounds, "paces": [pace._asdict() for pace in PACES]}


def _counted(bound: Bound, counts: dict[str, int]) -> dict[str, Any]:
    return report(bound, sum(counts.values()), Counter(counts).most_common(), None)
