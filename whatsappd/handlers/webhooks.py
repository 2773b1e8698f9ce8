"""`webhook.*`, for people and for the gateway's REST: configuring webhooks.

Delivering them is `webhook_delivery`'s half. Secrets leave the daemon twice: to whoever creates a
webhook (or a new secret for it), and to the deliverer, which signs with them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from whatsappd.api import webhooks as api
from whatsappd.api.declaration import NoParams
from whatsappd.errors import InvalidParams
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.auditing import note
from whatsappd.handlers.webhook_delivery import WebhookDelivery, webhook_values
from whatsappd.model.company import validate_company
from whatsappd.model.event import EVENT_TYPES
from whatsappd.model.webhook import StoredWebhook, WebhookConfig
from whatsappd.rpc.method import Call, Method
from whatsappd.rules.webhook_policy import validate_url
from whatsappd.store.port import EventLog, WebhookStore


class WebhooksApi:
    def __init__(
        self,
        webhooks: WebhookStore,
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
            Method(api.CREATE, self._create),
            Method(api.LIST, self._list),
            Method(api.GET, self._get),
            Method(api.UPDATE, self._update),
            Method(api.REMOVE, self._remove),
            Method(api.TEST, self._test),
            Method(api.DEAD_LETTERS, self._dead),
            Method(api.RESEND, self._resend),
            Method(api.DISCARD, self._discard),
            *self._delivery.methods(),
        ]

    # --- configuration ------------------------------------------------------------------------

    async def _create(self, call: Call, params: api.CreateWebhook) -> api.WebhookInfo:
        wanted = WebhookConfig(
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
        return self._shown(made, with_secret=True)

    async def _list(self, _call: Call, _params: NoParams) -> api.WebhookList:
        return api.WebhookList(
            webhooks=[self._shown(each) for each in await self._webhooks.all()],
            delivering=self._delivery.is_up,
        )

    async def _get(self, _call: Call, params: api.OneWebhook) -> api.WebhookInfo:
        return self._shown(await self._webhooks.get(params.id))

    async def _update(self, call: Call, params: api.UpdateWebhook) -> api.WebhookInfo:
        given: dict[str, Any] = {
            name: value
            for name in ("url", "allow_private", "enabled")
            if (value := getattr(params, name)) is not msgspec.UNSET and value is not None
        }
        if params.companies is not msgspec.UNSET:
            given["companies"] = _companies(params.companies)
        if params.types is not msgspec.UNSET:
            given["types"] = _types(params.types)
        if params.description is not msgspec.UNSET and params.description is not None:
            given["description"] = _description(params.description)

        def change(wanted: WebhookConfig) -> WebhookConfig:
            changed = wanted._replace(**given)
            validate_url(changed.url, allow_private=changed.allow_private)
            return changed

        updated = await self._webhooks.update(
            params.id,
            change,
            rotate_secret=params.rotate_secret,
            note=note(call, "webhook.update"),
        )
        return self._shown(updated, with_secret=params.rotate_secret)

    async def _remove(self, call: Call, params: api.OneWebhook) -> api.RemovedWebhook:
        await self._webhooks.remove(params.id, note(call, "webhook.remove"))
        return api.RemovedWebhook(id=params.id)

    async def _test(self, _call: Call, params: api.OneWebhook) -> api.TestedWebhook:
        """Raises:
        Unreachable: no gateway runs that could.
        """
        await self._webhooks.get(params.id)
        outcome = await self._delivery.test(params.id)
        return api.TestedWebhook(id=params.id, **msgspec.structs.asdict(outcome))

    async def _dead(self, _call: Call, params: api.ReadDeadLetters) -> api.DeadLetterPage:
        letters = await self._webhooks.dead_letters(
            params.id, after=params.after, limit=params.limit
        )
        full = len(letters) == params.limit
        return api.DeadLetterPage(
            dead_letters=[
                api.DeadLetterInfo(**{**letter._asdict(), "resend": bool(letter.resend)})
                for letter in letters
            ],
            next=letters[-1].id if full else None,
        )

    async def _resend(self, _call: Call, params: api.LettersOfWebhook) -> api.CountedLetters:
        count = await self._webhooks.resend(params.id, params.letters)
        return api.CountedLetters(id=params.id, count=count)

    async def _discard(self, _call: Call, params: api.LettersOfWebhook) -> api.CountedLetters:
        count = await self._webhooks.discard(params.id, params.letters)
        return api.CountedLetters(id=params.id, count=count)

    def _shown(self, webhook: StoredWebhook, *, with_secret: bool = False) -> api.WebhookInfo:
        shown = api.WebhookInfo(**webhook_values(webhook, self._events.last_seq))
        if with_secret:
            shown.secret = webhook.secret
        return shown


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
