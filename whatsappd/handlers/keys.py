"""`key.*` and `daemon.audit`: who may come in through the gateway, and who did what.

`whatsappctl keys` and the gateway call them. Whoever may call `key.create` can let in anybody, so
access rules should leave `key.*` and `daemon.audit` to users that are bound to no company.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import trio

from whatsappd.api.params import CompanyId, Params
from whatsappd.errors import InvalidParams
from whatsappd.handlers.auditing import note
from whatsappd.model.company import validate_company
from whatsappd.rpc.method import Call, Method, NoParams
from whatsappd.store.sqlite.audit import AuditTrail
from whatsappd.store.sqlite.keys import Keys, Scope
from whatsappd.wire.rpc import pack_notification

#: Lines of one answer; each has at most some 500 bytes.
MAX_LINES = 1000


class CreateParams(Params):
    name: str
    scope: Scope
    companies: Annotated[list[CompanyId], msgspec.Meta(max_length=1000)] | None = None


class KeyId(Params):
    id: str


class CheckParams(Params):
    key: Annotated[str, msgspec.Meta(max_length=1000)]


class AuditParams(Params):
    after: Annotated[int, msgspec.Meta(ge=0)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LINES)] = 100
    company: CompanyId | None = None


class KeysApi:
    def __init__(self, keys: Keys, trail: AuditTrail) -> None:
        self._keys = keys
        self._trail = trail
        self._following: set[int] = set()  # connections

    def methods(self) -> list[Method]:
        return [
            Method("key.create", CreateParams, self._create, "Make an API key.", writes=True),
            Method("key.list", NoParams, self._list, "The API keys.", writes=False),
            Method("key.revoke", KeyId, self._revoke, "End an API key.", writes=True),
            Method("key.follow", NoParams, self._follow, "Hear of revoked keys.", writes=True),
            Method("key.check", CheckParams, self._check, "Whose key that is.", writes=False),
            Method("daemon.audit", AuditParams, self._audit, "Who did what.", writes=False),
        ]

    async def _create(self, call: Call, params: CreateParams) -> dict[str, Any]:
        """`key` is the key itself; nobody can ask for it again."""
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
        return {**key.as_wire(), "key": text}

    def _list(self, _call: Call, _params: NoParams) -> dict[str, Any]:
        return {"keys": [key.as_wire() for key in self._keys.list_all()]}

    async def _revoke(self, call: Call, params: KeyId) -> dict[str, Any]:
        return (await self._keys.revoke(params.id, note(call, "key.revoke"))).as_wire()

    def _follow(self, call: Call, _params: NoParams) -> dict[str, Any]:
        """For the gateway: `key.revoked {id}` is notified for each key that is, until the
        connection ends. Asked for again, nothing more is done."""
        connection = call.connection
        if id(connection) in self._following or connection.closed:
            return {}
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
        return {}

    def _check(self, _call: Call, params: CheckParams) -> dict[str, Any]:
        return self._keys.check(params.key).as_wire()

    async def _audit(self, _call: Call, params: AuditParams) -> dict[str, Any]:
        """Without `after`, the newest. `next` is the cursor to go on with, forwards."""
        company = validate_company(params.company) if params.company is not None else None
        lines = await self._trail.read(after=params.after, limit=params.limit, company=company)
        return {"lines": lines, "next": lines[-1]["id"] if lines else params.after}
