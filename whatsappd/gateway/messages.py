"""`/v1/sessions/{company}/messages`: send, and see what became of it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

import structlog
import trio
from fastapi import APIRouter, Header, Path, Query, Response

from whatsappd.errors import SendFailed, WhatsappdError
from whatsappd.gateway.asking import Asking, Company, Reading, Sending
from whatsappd.gateway.json_answer import JsonAnswer
from whatsappd.gateway.models import (
    MESSAGE_ID_PATTERN,
    Messages,
    OutboxMessage,
    OutboxStateName,
    ResolveMessage,
    SendMessage,
)

log = structlog.get_logger()

router = APIRouter(prefix="/v1/sessions/{company}/messages", tags=["messages"],
                   default_response_class=JsonAnswer)  # fmt: skip

MessageId = Annotated[str, Path(pattern=MESSAGE_ID_PATTERN, examples=["019ab0c4d2e10001"])]

_SENT = {"sent", "delivered", "read", "played"}
_ENDED = {"failed", "expired", "cancelled"}


@router.post(
    "",
    summary="Send a text message",
    status_code=202,
    responses={
        201: {"model": OutboxMessage, "description": "WhatsApp's server has it."},
        202: {"description": "Accepted and durable; it will be sent."},
    },
)
async def send_message(
    company: Company,
    body: SendMessage,
    asking: Sending,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern=r"^[\x21-\x7e]+$",
            description="Yours: the same key with the same content gives the same message, however "
            "often you ask; with other content it is 409. So retry on any error, with the key.",
            examples=["order-4711"],
        ),
    ] = None,
    wait: Annotated[
        Literal["queued", "sent", "delivered"], Query(description="Answer only when it got there.")
    ] = "queued",
    timeout: Annotated[
        float,
        Query(
            ge=0,
            le=60,
            description="Seconds to wait; then, or if the daemon goes away meanwhile, 202 with the "
            "state that is known.",
        ),
    ] = 30,
) -> OutboxMessage:
    row = await asking.call(
        "message.send",
        company=company,
        to=body.to,
        text=body.text,
        key=idempotency_key,
        ttl_ms=body.ttl_ms,
        on_uncertain=body.on_uncertain,
        no_queue=body.no_queue,
    )
    if wait != "queued":
        row = await _awaited(asking, row, wait, timeout)
        if row["state"] in _ENDED:
            raise SendFailed(
                f"the message is {row['state']}: {row['reason'] or 'it will not be sent'}",
                id=row["id"],
                state=row["state"],
            )
    response.status_code = 201 if row["state"] in _SENT else 202
    response.headers["Location"] = asking.path(f"/v1/sessions/{company}/messages/{row['id']}")
    return OutboxMessage(**row)


async def _awaited(
    asking: Asking, row: dict[str, Any], wait: str, timeout: float
) -> dict[str, Any]:
    """The row when it got that far, never will, or `timeout` seconds passed.

    It is accepted: whatever becomes of the daemon meanwhile, whoever sent it must not be told to
    come again, which without an Idempotency-Key would send it twice. So `row` is what is answered
    where nobody can tell more.
    """
    try:
        # On a connection of its own: what waits for long must not hold a place on the shared one,
        # and the daemon stops waiting when it closes.
        with trio.move_on_after(timeout):
            async with asking.link.connection() as client:
                waited: dict[str, Any] = await client.request(
                    "message.wait",
                    {"id": row["id"], "for": wait},
                    actor=asking.identity.actor,
                )
                return waited
    except WhatsappdError as error:
        _check_accepted(row, error)
    try:
        found: dict[str, Any] = await asking.call("message.get", id=row["id"])
    except WhatsappdError as error:
        _check_accepted(row, error)
        return row
    return found


def _check_accepted(row: dict[str, Any], error: WhatsappdError) -> None:
    """Raises `error` if it says something of the message, rather than of the daemon."""
    if error.http_status < HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error
    log.info("message_not_awaited", id=row["id"], reason=error.message)


@router.get("", summary="Messages, the newest first")
async def list_messages(
    company: Company,
    asking: Reading,
    state: Annotated[list[OutboxStateName] | None, Query(description="Only these states.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[
        str | None, Query(pattern=MESSAGE_ID_PATTERN, description="`next` of the page before.")
    ] = None,
) -> Messages:
    found = await asking.call(
        "message.list", company=company, states=state, limit=limit, before=cursor
    )
    return Messages(messages=found["rows"], next=found["next"])


@router.get("/{message_id}", summary="One message")
async def get_message(company: Company, message_id: MessageId, asking: Reading) -> OutboxMessage:
    return OutboxMessage(**await asking.call("message.get", id=message_id, company=company))


@router.post("/{message_id}/cancel", summary="Cancel a message that waits")
async def cancel_message(company: Company, message_id: MessageId, asking: Sending) -> OutboxMessage:
    return OutboxMessage(**await asking.call("message.cancel", id=message_id, company=company))


@router.post("/{message_id}/resolve", summary="Decide what became of an uncertain message")
async def resolve_message(
    company: Company, message_id: MessageId, body: ResolveMessage, asking: Sending
) -> OutboxMessage:
    return OutboxMessage(
        **await asking.call("message.resolve", id=message_id, company=company, **{"as": body.as_})
    )
