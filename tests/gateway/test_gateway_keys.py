"""How the gateway asks the daemon about keys: seldom, and once for many."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from whatsappd.errors import Denied, Unreachable
from whatsappd.gateway.auth import BELIEVED_FOR, ApiKeys
from whatsappd.gateway.problems import HttpError


class Link:
    """Answers `key.check` after a moment, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    async def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert method == "key.check"
        self.asked += 1
        await trio.sleep(0.1)
        if self.error is not None:
            raise self.error
        return {"id": "a", "name": "a", "scope": "read", "companies": None}


HEADERS = {"authorization": "Bearer wak_a"}


async def test_a_thousand_that_ask_at_once_cost_one_question(autojump_clock) -> None:
    link = Link()
    keys = ApiKeys(link)  # type: ignore[arg-type]
    for round_ in (1, 2):
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(keys.identify, HEADERS, "192.0.2.1")
        assert link.asked == round_
        await trio.sleep(BELIEVED_FOR + 0.1)


async def test_a_refusal_is_not_remembered_and_trouble_is_no_refusal(autojump_clock) -> None:
    link = Link()
    keys = ApiKeys(link)  # type: ignore[arg-type]
    link.error = Denied("unknown")
    with pytest.raises(HttpError) as refused:
        await keys.identify(HEADERS, "192.0.2.1")
    assert refused.value.status == 401
    for _ in range(20):  # none of these counts as a wrong key
        link.error = Unreachable("away")
        with pytest.raises(Unreachable):
            await keys.identify(HEADERS, "192.0.2.1")
    link.error = None
    assert (await keys.identify(HEADERS, "192.0.2.1")).actor == "key:a"


async def test_one_who_was_cancelled_leaves_nobody_waiting(autojump_clock) -> None:
    link = Link()
    keys = ApiKeys(link)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.05):
            nursery.start_soon(keys.identify, HEADERS, "192.0.2.2")
            await keys.identify(HEADERS, "192.0.2.1")
        with trio.fail_after(1):
            await keys.identify(HEADERS, "192.0.2.3")
