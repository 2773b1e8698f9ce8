"""What the admission lets through, without a network: requests as a server hands them on (ASGI)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from whatsappd.gateway.admission import MAX_BODY, MAX_OF_ONE, MAX_REQUESTS, RequestAdmission
from whatsappd.gateway.answers import HttpAnswer, Receive
from whatsappd.gateway.auth import ADMIN, Identity
from whatsappd.gateway.requests import HttpRequest
from whatsappd.gateway.settings import Exposure
from whatsappd.gateway.websocket import AcceptedWebSocket

Message = dict[str, Any]
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


async def body_length(request: HttpRequest) -> HttpAnswer:
    """The routes: they answer how long the body is."""
    return HttpAnswer(str(len(request.body)).encode())


class OnlyAnswers:
    """Requests that were let in, answered by a function of the test."""

    def __init__(self, answer: Callable[[HttpRequest], Awaitable[HttpAnswer]]) -> None:
        self.answer = answer

    async def upgrade(self, _request: HttpRequest, _websocket: AcceptedWebSocket) -> None:
        raise AssertionError


class WaitsForEver:
    """Routes that answer nothing; `now` requests are in them."""

    def __init__(self) -> None:
        self.now = 0

    async def __call__(self, _request: HttpRequest) -> HttpAnswer:
        self.now += 1
        try:
            await trio.sleep_forever()
        finally:
            self.now -= 1
        raise AssertionError


def admission(
    routes: Callable[[HttpRequest], Awaitable[HttpAnswer]] = body_length,
    *,
    behind_proxy: bool = False,
) -> RequestAdmission:
    return RequestAdmission(OnlyAnswers(routes), ByName(), Exposure(behind_proxy=behind_proxy))


async def ask(
    asked: RequestAdmission,
    method: str,
    path: str,
    receive: Receive,
    *headers: tuple[str, str],
    name: str = "a",
) -> Answer:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "client": ("192.0.2.1", 1),
        "headers": [(key.encode(), value.encode()) for key, value in (("x-name", name), *headers)],
    }  # fmt: skip
    await asked(scope, receive, send)
    return Answer(
        sent[0]["status"],
        {key.decode(): value.decode() for key, value in sent[0]["headers"]},
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
    answer = await ask(admission(), method, path, body, wants_stream)
    assert (answer.status, answer.name) == (413, "too_large")
    assert body.given <= MAX_BODY // MIB + 1
    kind = ("content-type", "text/plain")
    answer = await ask(admission(), method, path, Body(1), wants_stream, kind)
    assert (answer.status, answer.name) == (415, "unsupported_media_type")


async def never() -> Message:
    """A client that says that it has a body, and sends nothing."""
    await trio.sleep_forever()
    raise AssertionError


LATER = ("content-length", "5")


async def test_what_is_public_is_only_looked_at_and_no_body_is_waited_for(autojump_clock) -> None:
    asked = admission()
    for method in ("POST", "PUT", "PATCH", "DELETE", "BREW"):
        answer = await ask(asked, method, "/x", never, LATER)
        assert (answer.status, answer.name) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    for method, body in [("GET", b"0"), ("HEAD", b"")]:
        answer = await ask(asked, method, "/livez", never, LATER)
        assert (answer.status, answer.body) == (200, body)
    assert trio.current_time() < 1


async def test_nobody_takes_the_room_of_others(autojump_clock) -> None:
    """Also those who look at the public pages have a share, and not more."""
    waiting = WaitsForEver()
    asked = admission(waiting)
    answers: list[Answer] = []

    async def one(name: str, method: str, path: str) -> None:
        answers.append(await ask(asked, method, path, Body(0), name=name))

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_REQUESTS):
            nursery.start_soon(one, "greedy", "POST", MESSAGES)
            nursery.start_soon(one, "nobody", "GET", "/docs")
        await trio.testing.wait_all_tasks_blocked()
        assert waiting.now == 2 * MAX_OF_ONE
        assert {(each.status, each.name) for each in answers} == {(503, "too_many_requests")}
        assert answers[0].headers["retry-after"] == "1"
        for name in "bc":  # there is room for others
            nursery.start_soon(one, name, "POST", MESSAGES)
        await trio.testing.wait_all_tasks_blocked()
        assert waiting.now == 2 * MAX_OF_ONE + 2
        for name in "de":
            for _ in range(MAX_REQUESTS):
                nursery.start_soon(one, name, "POST", MESSAGES)
        await trio.testing.wait_all_tasks_blocked()
        assert waiting.now == MAX_REQUESTS
        nursery.cancel_scope.cancel()


async def test_room_is_given_back() -> None:
    asked = admission()
    for path in [MESSAGES, "/livez"] * MAX_REQUESTS:
        assert (await ask(asked, "GET", path, Body(0))).status == 200


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["6.6.6.6", "192.0.2.9"], "192.0.2.9"),
        (["6.6.6.6", "7.7.7.7, 192.0.2.9 "], "192.0.2.9"),
        (["6.6.6.6, 192.0.2.9"], "192.0.2.9"),
        (["6.6.6.6", "192.0.2.9:4711"], "192.0.2.9"),  # with the port that it came from
        (["6.6.6.6", "[2001:db8::9]:4711"], "2001:db8::9"),
        (["6.6.6.6", "::ffff:192.0.2.9"], "192.0.2.9"),
        (["6.6.6.6", "unknown"], "192.0.2.1"),
        (["6.6.6.6", ""], "192.0.2.1"),  # our proxy knew none: not what the client says
        ([], "192.0.2.1"),
    ],
)
async def test_behind_a_proxy_only_what_it_added_last_is_believed(
    lines: list[str], address: str
) -> None:
    """A proxy may add a line of its own, rather than to the client's."""

    async def tell(request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(request.address.encode())

    headers = [("x-forwarded-for", line) for line in lines]
    answer = await ask(admission(tell, behind_proxy=True), "GET", "/livez", Body(0), *headers)
    assert answer.body.decode() == address
    answer = await ask(admission(tell), "GET", "/livez", Body(0), *headers)
    assert answer.body == b"192.0.2.1"
