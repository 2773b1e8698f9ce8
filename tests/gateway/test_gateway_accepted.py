"""What was accepted is answered so, whatever becomes of the daemon while its end is waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from whatsappd.errors import (
    Internal,
    KeyConflict,
    Stopping,
    StoreFailed,
    TooManyRequests,
    Unreachable,
    WhatsappdError,
)
from whatsappd.gateway.app import Application
from whatsappd.gateway.auth import NoAuthentication
from whatsappd.gateway.daemon_link import DaemonLink

ROW = {
    "id": "019ab0c4d2e10001", "company": "acme", "chat": "15550200@s.whatsapp.net",
    "content": {"kind": "text", "text": "Hello"}, "text": "Hello", "key": None,
    "state": "queued", "reason": None, "attempts": 0,
    "not_before_ms": 0, "on_uncertain": "ask", "message_id": None, "expires_ms": None,
    "created_ms": 1, "updated_ms": 1, "sent_ms": None,
}  # fmt: skip


class Client:
    def __init__(self, trouble: WhatsappdError) -> None:
        self._trouble = trouble

    async def request(
        self, method: str, _arguments: Mapping[str, Any], *, actor: str | None = None
    ) -> Any:
        assert method == "message.wait"
        raise self._trouble


class Link(DaemonLink):
    """To a daemon that accepts a message, and then gets into trouble."""

    def __init__(self, waiting: WhatsappdError, asking: WhatsappdError | None) -> None:
        super().__init__(Path("/nowhere"))
        self._waiting = waiting
        self._asking = asking

    async def request(self, method: str, arguments: dict[str, Any], *, actor: str | None) -> Any:
        if method == "message.get" and self._asking is not None:
            raise self._asking
        return ROW if method == "message.send" else {**ROW, "state": "sent"}

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        yield Client(self._waiting)


async def send(link: Link) -> httpx.Response:
    app = Application(link, NoAuthentication())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as http:
        return await http.post(
            "/v1/sessions/acme/messages?wait=sent", json={"to": "+15550200", "text": "Hello"}
        )


TROUBLE = [Unreachable, Stopping, TooManyRequests, StoreFailed, Internal]


@pytest.mark.parametrize("waiting", TROUBLE)
@pytest.mark.parametrize("asking", TROUBLE)
async def test_nobody_is_told_to_send_again_what_was_accepted(
    waiting: type[WhatsappdError], asking: type[WhatsappdError]
) -> None:
    """Without an Idempotency-Key it would be sent twice."""
    answer = await send(Link(waiting("away"), asking("away")))
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/v1/sessions/acme/messages/{ROW['id']}"
    assert "Retry-After" not in answer.headers
    assert (answer.json()["id"], answer.json()["state"]) == (ROW["id"], "queued")


async def test_how_far_it_is_by_now_is_told_if_it_can_be_known() -> None:
    answer = await send(Link(Unreachable("it was restarted"), None))
    assert (answer.status_code, answer.json()["state"]) == (201, "sent")


async def test_what_was_not_accepted_is_refused_as_ever() -> None:
    class Refusing(Link):
        async def request(self, *_: Any, **__: Any) -> Any:
            raise KeyConflict("other content")

    assert (await send(Refusing(Unreachable(""), None))).status_code == 409
