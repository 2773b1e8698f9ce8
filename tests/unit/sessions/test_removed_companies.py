"""What is left of removed companies is deleted, whatever one of them does."""

from __future__ import annotations

from typing import Any

import trio

from whatsappd.errors import StoreFailed
from whatsappd.sessions.company_tasks import CompanyLocks
from whatsappd.sessions.removed_companies import RemovedCompanies


async def test_one_that_cannot_be_deleted_holds_up_no_other() -> None:
    class Stubborn:
        def __init__(self) -> None:
            self.left = ["acme", "globex"]
            self.tried = trio.Event()

        async def pending(self) -> list[str]:
            return list(self.left)

        async def finish(self, company: str) -> None:
            if company == "acme":
                raise StoreFailed("cannot be deleted")
            self.left.remove(company)
            self.tried.set()

    removals: Any = Stubborn()
    removed = RemovedCompanies(removals, CompanyLocks(), exists=lambda _company: False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(removed.run)
        with trio.fail_after(5):
            await removals.tried.wait()
        nursery.cancel_scope.cancel()
    assert removals.left == ["acme"]
