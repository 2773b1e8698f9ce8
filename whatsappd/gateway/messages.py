"""`/v1/sessions/{company}/messages`: send, and see what became of it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
import structlog
import trio
from msgspec import Meta

from whatsappd.api import messages as api
from whatsappd.api.declaration import NoParams, Params, Result
from whatsappd.api.messages import MAX_KEY, MAX_LIST, MessageToSend, OutboxMessage, Resolution
from whatsappd.errors import SendFailed, WhatsappdError
from whatsappd.gateway.answers import HttpAnswer, as_json
from whatsappd.gateway.auth import READ, SEND
from whatsappd.gateway.daemon_link import ask
from whatsappd.gateway.requests import RoutedRequest
from whatsappd.gateway.routing import Possible, Routes, headers_of
from whatsappd.model.message import OutboxState
from whatsappd.rules.delivery import SENT_OR_BEYOND

log = structlog.get_logger()

routes = Routes("messages")
_ALL = "/v1/sessions/{company}/messages"
_ONE = "/v1/sessions/{company}/messages/{message_id}"

_ENDED = {OutboxState.FAILED, OutboxState.EXPIRED, OutboxState.CANCELLED}


class Waiting(Params):
    """When to answer."""

    wait: Annotated[
        Literal["queued", "sent", "delivered"], Meta(description="Answer only when it got there.")
    ] = "queued"
    timeout: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="Seconds to wait; then, or if the daemon goes away meanwhile, 202 with the "
            "state that is known.",
        ),
    ] = 30


class IdempotencyKey(Params, rename={"key": "idempotency-key"}):
    key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_KEY, pattern=r"^[\x21-\x7e]+$(?!\n)")]
        | None,
        Meta(
            description="Yours: the same key with the same content gives the same message, however "
            "often you ask; with other content it is 409. So retry on any error, with the key.",
            examples=["order-4711"],
        ),
    ] = None


class MessageFilter(Params):
    """Which messages to list."""

    state: Annotated[list[OutboxState] | None, Meta(description="Only these states.")] = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIST, description="Messages in one answer.")] = 50
    cursor: Annotated[
        Annotated[str, Meta(pattern=api.MESSAGE_ID_PATTERN)] | None,
        Meta(description="`next` of the page before."),
    ] = None


class MessagePage(Result):
    """One page, the newest first. `next` is the cursor of the following page; null at the end."""

    messages: list[OutboxMessage]
    next: str | None


@routes.route(
    "POST",
    _ALL,
    "Send a message",
    scope=SEND,
    query=Waiting,
    headers=IdempotencyKey,
    body=MessageToSend,
    body_required=True,
    answers={
        202: Possible(OutboxMessage, "Accepted and durable; it will be sent."),
        201: Possible(OutboxMessage, "WhatsApp's server has it."),
    },
)
async def send_message(asked: RoutedRequest[Waiting, MessageToSend]) -> HttpAnswer:
    given = headers_of(asked.request.headers, IdempotencyKey)
    wishes = msgspec.structs.asdict(asked.body)
    row = await asked.call(
        api.SEND, api.SendMessage(company=asked.company.company, key=given.key, **wishes)
    )
    if asked.query.wait != "queued":
        row = await _awaited(asked, row, asked.query.wait)
        if row.state in _ENDED:
            raise SendFailed(
                f"the message is {row.state}: {row.reason or 'it will not be sent'}",
                id=row.id,
                state=row.state,
            )
    status = 201 if row.state in SENT_OR_BEYOND else 202
    place = asked.located(f"/v1/sessions/{row.company}/messages/{row.id}")
    return as_json(row, status=status, headers=place)


async def _awaited(
    asked: RoutedRequest[Waiting, MessageToSend],
    row: OutboxMessage,
    wait: Literal["sent", "delivered"],
) -> OutboxMessage:
    """The row when it got that far, never will, or the caller's time is over.

    It is accepted: whatever becomes of the daemon meanwhile, whoever sent it must not be told to
    come again, which without an Idempotency-Key would send it twice. So `row` is what is answered
    where nobody can tell more.
    """
    waiting = api.WaitForMessage(id=row.id, for_=wait)
    try:
        # On a connection of its own: what waits for long must not hold a place on the shared one,
        # and the daemon stops waiting when it closes.
        with trio.move_on_after(asked.query.timeout):
            async with asked.shared.link.connection() as client:
                return await ask(client, api.WAIT, waiting, actor=asked.identity.actor)
    except WhatsappdError as error:
        _check_accepted(row, error)
    try:
        return await asked.call(api.GET, api.OneMessage(id=row.id))
    except WhatsappdError as error:
        _check_accepted(row, error)
        return row


def _check_accepted(row: OutboxMessage, error: WhatsappdError) -> None:
    """Raises `error` if it says something of the message, rather than of the daemon."""
    if error.http_status < HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error
    log.info("message_not_awaited", id=row.id, reason=error.message)


@routes.route(
    "GET", _ALL, "Messages, the newest first", scope=READ, query=MessageFilter, answers=MessagePage
)
async def list_messages(asked: RoutedRequest[MessageFilter, NoParams]) -> MessagePage:
    query = asked.query
    found = await asked.call(
        api.LIST,
        api.ListMessages(
            company=asked.company.company,
            states=query.state,
            limit=query.limit,
            before=query.cursor,
        ),
    )
    return MessagePage(messages=found.rows, next=found.next)


@routes.route("GET", _ONE, "One message", scope=READ, answers=OutboxMessage)
async def get_message(asked: RoutedRequest[NoParams, NoParams]) -> OutboxMessage:
    return await asked.call(api.GET, _named(asked))


@routes.route("POST", f"{_ONE}/cancel", "Cancel a message that waits", scope=SEND,
              answers=OutboxMessage)  # fmt: skip
async def cancel_message(asked: RoutedRequest[NoParams, NoParams]) -> OutboxMessage:
    return await asked.call(api.CANCEL, _named(asked))


@routes.route(
    "POST",
    f"{_ONE}/resolve",
    "Decide what became of an uncertain message",
    scope=SEND,
    body=Resolution,
    body_required=True,
    answers=OutboxMessage,
)
async def resolve_message(asked: RoutedRequest[NoParams, Resolution]) -> OutboxMessage:
    named = _named(asked)
    decision = api.ResolveMessage(id=named.id, company=named.company, as_=asked.body.as_)
    return await asked.call(api.RESOLVE, decision)


def _named(
    asked: RoutedRequest[NoParams, NoParams] | RoutedRequest[NoParams, Resolution],
) -> api.OneMessage:
    return api.OneMessage(id=asked.path["message_id"], company=asked.path["company"])
