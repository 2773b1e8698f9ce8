"""`webhook.*`, for people and for the gateway's REST: configuring webhooks.

Delivering them is `webhook_delivery`'s half. Secrets leave the daemon twice: to whoever creates a
webhook (or a new secret for it), and to the deliverer, which signs with them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from whatsappd.api.params import CompanyId, Params
from whatsappd.errors import InvalidParams
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.auditing import note
from whatsappd.handlers.webhook_delivery import Seq, WebhookDelivery, WebhookId, method
from whatsappd.model.company import validate_company
from whatsappd.model.event import EVENT_TYPES
from whatsappd.rpc.method import Call, Method, NoParams
from whatsappd.rules.webhooks import validate_url
from whatsappd.store.sqlite.events import EventLog
from whatsappd.store.sqlite.webhooks import (
    MAX_DESCRIPTION,
    Wanted,
    Webhook,
    Webhooks,
)

#: Of one webhook. All webhooks must fit into one answer.
MAX_COMPANIES = 100

Companies = Annotated[list[CompanyId], msgspec.Meta(max_length=MAX_COMPANIES)]
Types = Annotated[list[str], msgspec.Meta(max_length=100)]
Description = Annotated[str, msgspec.Meta(max_length=MAX_DESCRIPTION)]
Letters = Annotated[list[int], msgspec.Meta(max_length=1000)]


class CreateParams(Params):
    url: str
    companies: Companies | None = None
    types: Types | None = None
    description: Description = ""
    allow_private: bool = False
    enabled: bool = True
    after: Seq | None = None


class UpdateParams(Params):
    id: str
    url: str | msgspec.UnsetType = msgspec.UNSET
    companies: Companies | msgspec.UnsetType | None = msgspec.UNSET
    types: Types | msgspec.UnsetType | None = msgspec.UNSET
    description: Description | msgspec.UnsetType = msgspec.UNSET
    allow_private: bool | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    rotate_secret: bool = False


class DeadLettersParams(Params):
    id: str
    after: Seq = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class LettersParams(Params):
    id: str
    letters: Letters | None = None


class WebhooksApi:
    def __init__(
        self,
        webhooks: Webhooks,
        events: EventLog,
        delivery: WebhookDelivery,
        access: AccessControl,
    ) -> None:
        self._access = access
        self._webhooks = webhooks
        self._events = events
        self._delivery = delivery

    def methods(self) -> list[Method]:
        return [
            method("create", CreateParams, self._create, "Make a webhook; shows its secret."),
            method("list", NoParams, self._list, "The webhooks."),
            method("get", WebhookId, self._get, "One webhook."),
            method("update", UpdateParams, self._update, "Configure a webhook."),
            method("remove", WebhookId, self._remove, "Remove a webhook."),
            method("test", WebhookId, self._test, "Deliver a test event now."),
            method("dead_letters", DeadLettersParams, self._dead, "What it refused."),
            method("resend", LettersParams, self._resend, "Try dead letters once more."),
            method("discard", LettersParams, self._discard, "Delete dead letters."),
            *self._delivery.methods(),
        ]

    # --- configuration ------------------------------------------------------------------------

    async def _create(self, call: Call, params: CreateParams) -> dict[str, Any]:
        """`secret` is shown now and never again."""
        wanted = Wanted(
            url=validate_url(params.url, allow_private=params.allow_private),
            companies=_companies(params.companies),
            types=_types(params.types),
            description=_description(params.description),
            allow_private=params.allow_private,
            enabled=params.enabled,
        )
        made = await self._webhooks.create(
            wanted, params.after, self._access.owner_of(call), note(call, "webhook.create")
        )
        return {**self._shown(made), "secret": made.secret}

    async def _list(self, _call: Call, _params: NoParams) -> dict[str, Any]:
        """`delivering`: whether a gateway runs that delivers."""
        return {
            "webhooks": [self._shown(each) for each in await self._webhooks.all()],
            "delivering": self._delivery.is_up,
        }

    async def _get(self, _call: Call, params: WebhookId) -> dict[str, Any]:
        return self._shown(await self._webhooks.get(params.id))

    async def _update(self, call: Call, params: UpdateParams) -> dict[str, Any]:
        """What is not given stays. With `rotate_secret`, `secret` is the new one, from now on."""
        given: dict[str, Any] = {
            name: value
            for name in ("url", "allow_private", "enabled")
            if (value := getattr(params, name)) is not msgspec.UNSET
        }
        if params.companies is not msgspec.UNSET:
            given["companies"] = _companies(params.companies)
        if params.types is not msgspec.UNSET:
            given["types"] = _types(params.types)
        if params.description is not msgspec.UNSET:
            given["description"] = _description(params.description)

        def change(wanted: Wanted) -> Wanted:
            changed = wanted._replace(**given)
            validate_url(changed.url, allow_private=changed.allow_private)
            return changed

        updated = await self._webhooks.update(
            params.id,
            change,
            rotate_secret=params.rotate_secret,
            note=note(call, "webhook.update"),
        )
        shown = self._shown(updated)
        return {**shown, "secret": updated.secret} if params.rotate_secret else shown

    async def _remove(self, call: Call, params: WebhookId) -> dict[str, Any]:
        await self._webhooks.remove(params.id, note(call, "webhook.remove"))
        return {"id": params.id}

    async def _test(self, _call: Call, params: WebhookId) -> dict[str, Any]:
        """Deliver a `webhook.test` event, out of turn: `ok`, `status`, `error`, `took_ms`.

        Raises:
            Unreachable: no gateway runs that could.
        """
        await self._webhooks.get(params.id)
        return {"id": params.id, **await self._delivery.test(params.id)}

    async def _dead(self, _call: Call, params: DeadLettersParams) -> dict[str, Any]:
        letters = await self._webhooks.dead_letters(
            params.id, after=params.after, limit=params.limit
        )
        full = len(letters) == params.limit
        return {
            "dead_letters": [letter.as_wire() for letter in letters],
            "next": letters[-1].id if full else None,
        }

    async def _resend(self, _call: Call, params: LettersParams) -> dict[str, Any]:
        return {"id": params.id, "count": await self._webhooks.resend(params.id, params.letters)}

    async def _discard(self, _call: Call, params: LettersParams) -> dict[str, Any]:
        return {"id": params.id, "count": await self._webhooks.discard(params.id, params.letters)}

    def _shown(self, webhook: Webhook) -> dict[str, Any]:
        return {**webhook.as_wire(), "behind": max(0, self._events.last_seq - webhook.cursor)}


def _companies(named: list[str] | None) -> tuple[str, ...] | None:
    if named is None:
        return None
    if not named:
        raise InvalidParams(
            "companies: name at least one, or leave it out for all", field="companies"
        )
    return tuple(sorted({validate_company(each, field="companies") for each in named}))


def _types(named: list[str] | None) -> tuple[str, ...] | None:
    if named is None:
        return None
    for name in named:
        if name not in EVENT_TYPES:
            raise InvalidParams(
                f"types: there is no event type {name!r:.80} (accepted: {', '.join(EVENT_TYPES)})",
                field="types",
            )
    if not named:
        raise InvalidParams("types: name at least one, or leave it out for all", field="types")
    return tuple(sorted(set(named)))


def _description(text: str) -> str:
    if text.isprintable():
        return text
    raise InvalidParams("description: printable characters only", field="description")
