"""The routes below `/v1/webhooks`: make, list, change, test and remove webhooks; dead letters.

All of them need the scope `admin`. A key that is bound to companies sees only webhooks that are for
those companies alone; others do not exist for it (404). It cannot set `allow_private`: letting a
webhook reach addresses that are not on the Internet takes a key for all companies.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta

from whatsappd.api import webhooks as api
from whatsappd.api.declaration import NoParams, Params, Result
from whatsappd.api.types import Seq
from whatsappd.api.webhooks import ChosenLetters, CreateWebhook, WebhookChanges, WebhookInfo
from whatsappd.errors import Denied, unknown_webhook
from whatsappd.gateway.answers import NOT_KEPT, HttpAnswer, as_json
from whatsappd.gateway.auth import ADMIN
from whatsappd.gateway.requests import RoutedRequest
from whatsappd.gateway.routing import Possible, Routes

routes = Routes("webhooks")
_ALL = "/v1/webhooks"
_ONE = "/v1/webhooks/{webhook_id}"
_LETTERS = f"{_ONE}/dead-letters"

Nothing = RoutedRequest[NoParams, NoParams]


class LetterPage(Params):
    """Which page of the dead letters."""

    after: Annotated[Seq, Meta(description="`next` of the page before.")] = 0
    limit: Annotated[int, Meta(ge=1, le=500, description="Dead letters in one answer.")] = 100


class OwnWebhooks(Result):
    """The webhooks that the key may deal with."""

    webhooks: list[WebhookInfo]


def _is_own(asked: RoutedRequest[Any, Any], webhook: WebhookInfo) -> bool:
    mine, its = asked.identity.companies, webhook.companies
    return mine is None or (its is not None and mine.issuperset(its))


def _shown(webhook: WebhookInfo) -> WebhookInfo:
    """As REST answers it: `secret` is always there, and null unless it is new."""
    if webhook.secret is UNSET:
        webhook.secret = None
    return webhook


async def _own(asked: RoutedRequest[Any, Any]) -> WebhookInfo:
    """The webhook, if the key may deal with it; else there is none."""
    identity = asked.path["webhook_id"]
    found = await asked.call(api.GET, api.OneWebhook(id=identity))
    if not _is_own(asked, found):
        raise unknown_webhook(identity)
    return found


def _check_companies(asked: RoutedRequest[Any, Any], companies: list[str] | None) -> None:
    if asked.identity.companies is not None and companies is None:
        raise Denied("this key is bound to companies: name those that the webhook is for")
    for company in companies or ():
        asked.identity.check_company(company)


def _check_private(asked: RoutedRequest[Any, Any]) -> None:
    if asked.identity.companies is not None:
        raise Denied("this key is bound to companies: it cannot decide about allow_private")


@routes.route("GET", _ALL, "All webhooks that the key may deal with", scope=ADMIN,
              answers=OwnWebhooks)  # fmt: skip
async def list_webhooks(asked: Nothing) -> OwnWebhooks:
    found = await asked.call(api.LIST, NoParams())
    return OwnWebhooks(webhooks=[_shown(each) for each in found.webhooks if _is_own(asked, each)])


@routes.route(
    "POST",
    _ALL,
    "Make a webhook; shows its secret",
    scope=ADMIN,
    body=CreateWebhook,
    body_required=True,
    answers={201: Possible(WebhookInfo, "Made.")},
)
async def create_webhook(asked: RoutedRequest[NoParams, CreateWebhook]) -> HttpAnswer:
    _check_companies(asked, asked.body.companies)
    if asked.body.allow_private:
        _check_private(asked)
    made = await asked.call(api.CREATE, asked.body)
    place = asked.located(f"/v1/webhooks/{made.id}")
    return as_json(made, status=201, headers={**place, **NOT_KEPT})


@routes.route("GET", _ONE, "One webhook", scope=ADMIN, answers=WebhookInfo)
async def get_webhook(asked: Nothing) -> WebhookInfo:
    return _shown(await _own(asked))


@routes.route(
    "PATCH",
    _ONE,
    "Configure a webhook; may rotate its secret",
    scope=ADMIN,
    body=WebhookChanges,
    body_required=True,
    answers=WebhookInfo,
)
async def update_webhook(asked: RoutedRequest[NoParams, WebhookChanges]) -> HttpAnswer:
    found, body = await _own(asked), asked.body
    if body.companies is not UNSET:
        _check_companies(asked, body.companies)
    is_moved = body.url is not UNSET and body.url is not None and found.allow_private
    if body.allow_private is True or is_moved:
        _check_private(asked)
    changes = msgspec.structs.asdict(body)
    updated = await asked.call(api.UPDATE, api.UpdateWebhook(id=found.id, **changes))
    return as_json(_shown(updated), headers=NOT_KEPT)


@routes.route(
    "DELETE",
    _ONE,
    "Remove a webhook and its dead letters",
    scope=ADMIN,
    answers={204: Possible(None, "It is gone.")},
)
async def remove_webhook(asked: Nothing) -> HttpAnswer:
    found = await _own(asked)
    await asked.call(api.REMOVE, api.OneWebhook(id=found.id))
    return HttpAnswer(status=204)


@routes.route("POST", f"{_ONE}/test", "Deliver a test event now", scope=ADMIN,
              answers=api.TestedWebhook)  # fmt: skip
async def test_webhook(asked: Nothing) -> api.TestedWebhook:
    """Delivers an event of type `webhook.test`, out of turn, and tells what the receiver said."""
    found = await _own(asked)
    return await asked.call(api.TEST, api.OneWebhook(id=found.id))


@routes.route("GET", _LETTERS, "Events that it refused", scope=ADMIN, query=LetterPage,
              answers=api.DeadLetterPage)  # fmt: skip
async def list_dead_letters(asked: RoutedRequest[LetterPage, NoParams]) -> api.DeadLetterPage:
    found = await _own(asked)
    page = api.ReadDeadLetters(id=found.id, after=asked.query.after, limit=asked.query.limit)
    return await asked.call(api.DEAD_LETTERS, page)


@routes.route("POST", f"{_LETTERS}/resend", "Try dead letters once more", scope=ADMIN,
              body=ChosenLetters, answers=api.CountedLetters)  # fmt: skip
async def resend_dead_letters(asked: RoutedRequest[NoParams, ChosenLetters]) -> api.CountedLetters:
    found = await _own(asked)
    chosen = api.LettersOfWebhook(id=found.id, letters=asked.body.letters)
    return await asked.call(api.RESEND, chosen)


@routes.route("POST", f"{_LETTERS}/discard", "Delete dead letters", scope=ADMIN,
              body=ChosenLetters, answers=api.CountedLetters)  # fmt: skip
async def discard_dead_letters(asked: RoutedRequest[NoParams, ChosenLetters]) -> api.CountedLetters:
    found = await _own(asked)
    chosen = api.LettersOfWebhook(id=found.id, letters=asked.body.letters)
    return await asked.call(api.DISCARD, chosen)
