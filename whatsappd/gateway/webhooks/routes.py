"""`/v1/webhooks`: configure them, see how they fare, and what to do about dead letters.

All of it takes the scope `admin`. A key that is bound to companies deals with the webhooks of those
companies only, and cannot let one reach addresses of ours: that is for keys for all companies.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from whatsappd.errors import Denied, unknown_webhook
from whatsappd.gateway.asking import Administering, Asking
from whatsappd.gateway.json_answer import JsonAnswer
from whatsappd.gateway.webhooks.models import (
    MAX_SEQ,
    WEBHOOK_ID_PATTERN,
    Counted,
    CreateWebhook,
    DeadLetters,
    Letters,
    Tested,
    UpdateWebhook,
    Webhook,
    Webhooks,
)

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], default_response_class=JsonAnswer)

Wire = dict[str, Any]
WebhookId = Annotated[str, Path(pattern=WEBHOOK_ID_PATTERN, examples=["5pk2wczu"])]
#: A secret is shown once: nothing on the way may keep it.
_FRESH = {"Cache-Control": "no-store"}


def _is_own(asking: Asking, webhook: Wire) -> bool:
    mine, its = asking.identity.companies, webhook["companies"]
    return mine is None or (its is not None and mine.issuperset(its))


async def _own(asking: Asking, webhook_id: str) -> Wire:
    """The webhook, if the key may deal with it; else there is none."""
    found: Wire = await asking.call("webhook.get", id=webhook_id)
    if not _is_own(asking, found):
        raise unknown_webhook(webhook_id)
    return found


def _check_companies(asking: Asking, companies: list[str] | None) -> None:
    if asking.identity.companies is not None and companies is None:
        raise Denied("this key is bound to companies: name those that the webhook is for")
    for company in companies or ():
        asking.identity.check_company(company)


def _check_private(asking: Asking) -> None:
    if asking.identity.companies is not None:
        raise Denied("this key is bound to companies: it cannot decide about allow_private")


@router.get("", summary="All webhooks that the key may deal with")
async def list_webhooks(asking: Administering) -> Webhooks:
    found = (await asking.call("webhook.list"))["webhooks"]
    return Webhooks(webhooks=[Webhook(**each) for each in found if _is_own(asking, each)])


@router.post("", summary="Make a webhook; shows its secret", status_code=201)
async def create_webhook(body: CreateWebhook, asking: Administering, response: Response) -> Webhook:
    _check_companies(asking, body.companies)
    if body.allow_private:
        _check_private(asking)
    made = await asking.call("webhook.create", **body.model_dump())
    response.headers["Location"] = asking.path(f"/v1/webhooks/{made['id']}")
    response.headers.update(_FRESH)
    return Webhook(**made)


@router.get("/{webhook_id}", summary="One webhook")
async def get_webhook(webhook_id: WebhookId, asking: Administering) -> Webhook:
    return Webhook(**await _own(asking, webhook_id))


@router.patch("/{webhook_id}", summary="Configure a webhook; may rotate its secret")
async def update_webhook(
    webhook_id: WebhookId, body: UpdateWebhook, asking: Administering, response: Response
) -> Webhook:
    found = await _own(asking, webhook_id)
    changes = {
        name: value
        for name, value in body.model_dump(include=body.model_fields_set).items()
        # Null says "all" for these two, and nothing for the others.
        if value is not None or name in ("companies", "types")
    }
    if "companies" in changes:
        _check_companies(asking, changes["companies"])
    if changes.get("allow_private") or ("url" in changes and found["allow_private"]):
        _check_private(asking)
    updated = await asking.link.request(
        "webhook.update", {"id": webhook_id, **changes}, actor=asking.identity.actor
    )
    response.headers.update(_FRESH)
    return Webhook(**updated)


@router.delete("/{webhook_id}", summary="Remove a webhook and its dead letters", status_code=204)
async def remove_webhook(webhook_id: WebhookId, asking: Administering) -> None:
    await _own(asking, webhook_id)
    await asking.call("webhook.remove", id=webhook_id)


@router.post("/{webhook_id}/test", summary="Deliver a test event now")
async def test_webhook(webhook_id: WebhookId, asking: Administering) -> Tested:
    """Delivers an event of type `webhook.test`, out of turn, and tells what the receiver said."""
    await _own(asking, webhook_id)
    return Tested(**await asking.call("webhook.test", id=webhook_id))


@router.get("/{webhook_id}/dead-letters", summary="Events that it refused")
async def list_dead_letters(
    webhook_id: WebhookId,
    asking: Administering,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="`next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> DeadLetters:
    await _own(asking, webhook_id)
    return DeadLetters(
        **await asking.call("webhook.dead_letters", id=webhook_id, after=after, limit=limit)
    )


@router.post("/{webhook_id}/dead-letters/resend", summary="Try dead letters once more")
async def resend_dead_letters(
    webhook_id: WebhookId, asking: Administering, body: Letters | None = None
) -> Counted:
    await _own(asking, webhook_id)
    letters = body.letters if body else None
    return Counted(**await asking.call("webhook.resend", id=webhook_id, letters=letters))


@router.post("/{webhook_id}/dead-letters/discard", summary="Delete dead letters")
async def discard_dead_letters(
    webhook_id: WebhookId, asking: Administering, body: Letters | None = None
) -> Counted:
    await _own(asking, webhook_id)
    letters = body.letters if body else None
    return Counted(**await asking.call("webhook.discard", id=webhook_id, letters=letters))
