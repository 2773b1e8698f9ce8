"""What `message.send` does beside a removal of its company."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from whatsappd.api.messages import SendMessage
from whatsappd.errors import UnknownCompany
from whatsappd.handlers.messages import MessagesApi
from whatsappd.model.session import SessionState
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.outbox import open_outbox


class SlowPacing:
    """A limiter that takes its time, as one in Redis may; `meanwhile` happens in that time."""

    def __init__(self, meanwhile: Any) -> None:
        self._meanwhile = meanwhile
        self.refunded: list[str] = []

    async def prepay(self, _chat: str) -> Any:
        await trio.lowlevel.checkpoint()
        self._meanwhile()
        return SimpleNamespace(wait_ms=0)

    def accepted(self, _row: Any) -> None:
        raise AssertionError("it was accepted")

    def refund(self, chat: str) -> None:
        self.refunded.append(chat)


class OnePool:
    """A pool with one connected company, which may go, and come back as another one."""

    def __init__(self) -> None:
        self.sessions = {"acme": self._session()}

    def _session(self) -> Any:
        return SimpleNamespace(company="acme", state=SessionState.CONNECTED, cause="connected")

    def get(self, company: str) -> Any:
        if company not in self.sessions:
            raise UnknownCompany(f"company: {company!r} is unknown", company=company)
        return self.sessions[company]

    def remove(self) -> None:
        self.sessions.clear()

    def remove_and_make_anew(self) -> None:
        self.sessions["acme"] = self._session()


@pytest.mark.parametrize("how", ["remove", "remove_and_make_anew"])
async def test_nothing_is_accepted_for_a_company_that_was_removed_while_it_was_paid_for(
    tmp_path: Path, how: str
) -> None:
    pool = OnePool()
    pacing = SlowPacing(getattr(pool, how))
    pool.pacing = lambda _company: pacing  # type: ignore[attr-defined]
    async with open_database(tmp_path / "d.db") as database:
        events = await open_event_log(database)
        outbox = await open_outbox(database, events)
        access = SimpleNamespace(owner_of=lambda _call: None)
        settings = SimpleNamespace(queue_limit=10)
        api = MessagesApi(pool, outbox, settings, access)  # type: ignore[arg-type]
        params = SendMessage(company="acme", to="+15550100", text="x", no_queue=True)
        with pytest.raises(UnknownCompany):
            await api._send(None, params)  # type: ignore[arg-type]
        assert await outbox.view.list_rows(company="acme", limit=10) == []
    assert pacing.refunded == ["15550100@s.whatsapp.net"]
