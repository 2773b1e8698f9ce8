"""`key.*` and `daemon.audit`: the gateway's API keys, and the audit trail.

`whatsappctl keys` and the gateway call them. Whoever may call `key.create` can let in anybody, so
access rules should leave `key.*` and `daemon.audit` to users that are bound to no company.
"""

from __future__ import annotations

from typing import Any

import trio

from whatsappd.api import keys as api
from whatsappd.api.declaration import Done, NoParams
from whatsappd.errors import InvalidParams
from whatsappd.handlers.auditing import note
from whatsappd.model.api_key import ApiKey
from whatsappd.model.company import validate_company
from whatsappd.rpc.method import Call, Method
from whatsappd.store.audit_trail import AuditTrail
from whatsappd.store.port import KeyRing
from whatsappd.wire.rpc import pack_notification


class KeysApi:
    def __init__(self, keys: KeyRing, trail: AuditTrail) -> None:
        self._keys = keys
        self._trail = trail
        self._following: set[int] = set()  # connections

    def methods(self) -> list[Method]:
        return [
            Method(api.CREATE, self._create),
            Method(api.LIST, self._list),
            Method(api.REVOKE, self._revoke),
            Method(api.FOLLOW, self._follow),
            Method(api.CHECK, self._check),
            Method(api.AUDIT, self._audit),
        ]

    async def _create(self, call: Call, params: api.CreateKey) -> api.NewKey:
        companies = None
        if params.companies is not None:
            if not params.companies:
                raise InvalidParams(
                    "companies: name at least one, or leave it out for all", field="companies"
                )
            companies = tuple(
                sorted({validate_company(each, field="companies") for each in params.companies})
            )
        key, text = await self._keys.create(
            params.name, params.scope, companies, note(call, "key.create")
        )
        return api.NewKey(**_values(key), key=text)

    async def _list(self, _call: Call, _params: NoParams) -> api.KeyList:
        return api.KeyList(keys=[_shown(key) for key in await self._keys.list_all()])

    async def _revoke(self, call: Call, params: api.OneKey) -> api.KeyInfo:
        return _shown(await self._keys.revoke(params.id, note(call, "key.revoke")))

    def _follow(self, call: Call, _params: NoParams) -> Done:
        """Asked for again, nothing more is done."""
        connection = call.connection
        if id(connection) in self._following or connection.closed:
            return Done()
        self._following.add(id(connection))

        def tell(identity: str) -> None:
            told = pack_notification("key.revoked", {"id": identity})
            if not connection.offer_packed(told):
                connection.start_soon(connection.notify_packed, told)

        async def follow() -> None:
            unfollow = self._keys.follow(tell)
            try:
                await trio.sleep_forever()
            finally:
                unfollow()
                self._following.remove(id(connection))

        connection.start_soon(follow)
        return Done()

    async def _check(self, _call: Call, params: api.CheckKey) -> api.KeyInfo:
        return _shown(await self._keys.check(params.key))

    async def _audit(self, _call: Call, params: api.ReadAudit) -> api.AuditLines:
        company = validate_company(params.company) if params.company is not None else None
        lines = await self._trail.read(after=params.after, limit=params.limit, company=company)
        return api.AuditLines(
            lines=[api.AuditLine(**line) for line in lines],
            next=lines[-1]["id"] if lines else params.after,
        )


def _values(key: ApiKey) -> dict[str, Any]:
    companies = None if key.companies is None else list(key.companies)
    return {**key._asdict(), "companies": companies}


def _shown(key: ApiKey) -> api.KeyInfo:
    return api.KeyInfo(**_values(key))
