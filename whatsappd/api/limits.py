"""`daemon.limits` and `gateway.report`: how much callers may hold, and who holds how much."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from whatsappd.api.declaration import (
    Concerns,
    Declaration,
    Done,
    NoParams,
    Params,
    Result,
)
from whatsappd.rules.bounds import BOUNDS, REPORTED


class ReportedHolder(Params):
    holder: str
    held: int


class ReportedBound(Params):
    """How much is held of one bound; see `rules.bounds.report`."""

    name: str
    what: str
    each: int
    all: int
    kept: int
    held: int | None
    holders: Annotated[list[ReportedHolder], Meta(max_length=REPORTED)]
    refused: int | None


class ReportBounds(Params):
    """What the callers of a gateway hold."""

    bounds: Annotated[list[ReportedBound], Meta(max_length=len(BOUNDS))]


class BoundHolder(Result):
    """Who holds how many."""

    holder: Annotated[str, Meta(examples=["uid:1000"])]
    held: int


class BoundInfo(Result):
    """One bound, and how much of it is held."""

    name: str
    what: Annotated[str, Meta(description="The things that are counted.")]
    each: Annotated[int, Meta(description="The most that one holder has.")]
    all: Annotated[int, Meta(description="The most that all together have.")]
    kept: Annotated[
        int, Meta(description="Of these, those kept for root and the daemon's own user.")
    ]
    held: Annotated[
        int | None,
        Meta(description="How many are held; null: only another process knows, or it is not for "
             "this caller."),
    ]  # fmt: skip
    holders: Annotated[list[BoundHolder], Meta(description="Those that hold most.")]
    refused: Annotated[int | None, Meta(description="How often more was refused.")]


class PaceInfo(Result):
    """How often something may happen for one holder: `burst` at once, then `per_second`."""

    name: str
    what: str
    burst: int
    per_second: float


class BoundsInfo(Result):
    """The table of bounds. Callers who may not look at all companies see what they hold only."""

    bounds: list[BoundInfo]
    paces: list[PaceInfo]


REPORT = Declaration(
    "gateway.report",
    ReportBounds,
    Done,
    """Tell what the callers of a gateway hold.

    Kept until the connection ends. With several gateways, the last word counts.
    """,
    writes=True,
    concerns=Concerns.ALL,
)
LIMITS = Declaration(
    "daemon.limits", NoParams, BoundsInfo, "What callers may hold, and who holds how much.",
    writes=False, concerns=Concerns.SEVERAL,
)  # fmt: skip

METHODS = (REPORT, LIMITS)
