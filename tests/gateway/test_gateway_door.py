"""What the door lets through, without a network: requests as a server hands them on (ASGI)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import trio
from starlette.types import Message, Receive, Scope, Send

from whatsappd.gateway.auth import ADMIN, Identity
from whatsappd.gateway.door import MAX_BODY, Door

MESSAGES = "/v1/sessions/acme/messages"
MIB = 1024 * 1024


class ByName:
    """Whoever says a name is let in under it."""

    async def identify(self, headers: Mapping[str, str], _address: str) -> Identity:
        name = headers["x-name"]
        return Identity(f"key:{name}", name, ADMIN, None)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def name(self) -> str:
        return str(json.loads(self.body)["name"])


async def body_length(_scope: Scope, receive: Receive, send: Send) -> None:
    """The routes: they answer how long the body is."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def door(routes: Any = body_length, *, behind_proxy: bool = False) -> Door:
    return Door(routes, ByName(), local_only=False, behind_proxy=behind_proxy)


async def ask(
    asked: Door, method: str, path: str, receive: Receive, *headers: tuple[str, str]
) -> Answer:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "client": ("192.0.2.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in (("x-name", "a"), *headers)],
    }  # fmt: skip
    await asked(scope, receive, send)
    return Answer(
        sent[0]["status"],
        {name.decode(): value.decode() for name, value in sent[0]["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )


class Body:
    """A body of that many MiB; `given` of them were taken."""

    def __init__(self, mebibytes: int) -> None:
        self._all = mebibytes
        self.given = 0

    async def __call__(self) -> Message:
        await trio.lowlevel.checkpoint()
        if self._all == 0:
            return {"type": "http.request", "body": b""}
        self.given += 1
        return {"type": "http.request", "body": b"x" * MIB, "more_body": self.given < self._all}


@pytest.mark.parametrize(
    ("method", "path"), [("POST", MESSAGES), ("POST", "/v1/events"), ("GET", "/v1/sessions")]
)
async def test_what_only_says_that_it_wants_a_stream_is_bounded_like_any_other(
    method: str, path: str
) -> None:
    wants_stream = ("accept", "text/event-stream")
    body = Body(64)
    answer = await ask(door(), method, path, body, wants_stream)
    assert (answer.status, answer.name) == (413, "too_large")
    assert body.given <= MAX_BODY // MIB + 1
    kind = ("content-type", "text/plain")
    answer = await ask(door(), method, path, Body(1), wants_stream, kind)
    assert (answer.status, answer.name) == (415, "unsupported_media_type")
