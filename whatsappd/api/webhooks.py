"""`webhook.*`: configuring webhooks, and the other end for the process that delivers them.

People and the gateway's REST call the first part. The second (from `deliver` on) is for
`gateway.webhooks.deliverer`, of which there is one at a time: two would deliver events twice and
out of order. Secrets leave the daemon twice: to whoever creates a webhook (or a new secret for it),
and to the deliverer, which signs with them.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import msgspec
import structlog
import trio

from whatsappd.api.params import CompanyId, Params
from whatsappd.errors import Denied, InvalidParams, TimedOut, Unreachable, WrongState
from whatsappd.model.company import validate_company
from whatsappd.model.event import EVENT_TYPES
from whatsappd.rpc.method import Call, Method, NoParams, Notifier
from whatsappd.rules.webhooks import validate_url
from whatsappd.store.events import EventLog
from whatsappd.store.webhooks import (
    MAX_DESCRIPTION,
    Progress,
    Refused,
    Wanted,
    Webhook,
    Webhooks,
)

log = structlog.get_logger()

#: Seconds that a test delivery may take, the deliverer's own time-out included.
TEST_WITHIN = 30.0

Companies = Annotated[list[CompanyId], msgspec.Meta(max_length=1000)]
Types = Annotated[list[str], msgspec.Meta(max_length=100)]
Description = Annotated[str, msgspec.Meta(max_length=MAX_DESCRIPTION)]
Seq = Annotated[int, msgspec.Meta(ge=0)]
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


class WebhookId(Params):
    id: str


class DeadLettersParams(Params):
    id: str
    after: Seq = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class LettersParams(Params):
    id: str
    letters: Letters | None = None


class RefusedParam(Params):
    event: dict[str, Any]
    attempts: int
    reason: str


class GoneParam(Params):
    after: Seq
    first: Seq


class ProgressParams(Params):
    id: str
    revision: int
    cursor: Seq
    delivered: Seq = 0
    failures: Seq = 0
    last_success_ms: int | None = None
    failing_since_ms: int | None = None
    paused_since_ms: int | None = None
    last_error: str | None = None
    dead: list[RefusedParam] = msgspec.field(default_factory=list)
    gone: GoneParam | None = None


class TestedParams(Params):
    token: str
    result: dict[str, Any]


class ResentParams(Params):
    id: str
    letter: int
    refusal: str | None = None


class _Test:
    """A test delivery that somebody waits for."""

    def __init__(self, webhook: str) -> None:
        self.webhook = webhook
        self.done = trio.Event()
        self.result: dict[str, Any] = {}


class WebhooksApi:
    def __init__(self, webhooks: Webhooks, events: EventLog) -> None:
        self._webhooks = webhooks
        self._events = events
        self._deliverer: Notifier | None = None
        self._tests: dict[str, _Test] = {}
        self._test_asked = trio.Event()

    def methods(self) -> list[Method]:
        def method(verb: str, params: type[msgspec.Struct], handler: Any, doc: str) -> Method:
            # All of it concerns all companies. What only reads shows URLs, which may hold secrets
            # of the receiver: it is for those who could change them.
            return Method(f"webhook.{verb}", params, handler, doc, writes=True)

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
            # for the deliverer
            method("deliver", NoParams, self._deliver, "Be the one who delivers."),
            method("work", NoParams, self._work, "What is to deliver, with secrets."),
            method("progress", ProgressParams, self._progress, "How far a webhook is."),
            method("tested", TestedParams, self._tested, "What became of a test."),
            method("next_resend", WebhookId, self._next_resend, "A dead letter to try again."),
            method("resent", ResentParams, self._resent, "What became of a resend."),
        ]

    # --- configuration ------------------------------------------------------------------------

    async def _create(self, _call: Call, params: CreateParams) -> dict[str, Any]:
        """`secret` is shown now and never again."""
        wanted = Wanted(
            url=validate_url(params.url, allow_private=params.allow_private),
            companies=_companies(params.companies),
            types=_types(params.types),
            description=_description(params.description),
            allow_private=params.allow_private,
            enabled=params.enabled,
        )
        made = await self._webhooks.create(wanted, params.after)
        return {**self._shown(made), "secret": made.secret}

    async def _list(self, _call: Call, _params: NoParams) -> dict[str, Any]:
        """`delivering`: whether a gateway runs that delivers."""
        return {
            "webhooks": [self._shown(each) for each in await self._webhooks.all()],
            "delivering": self._deliverer is not None,
        }

    async def _get(self, _call: Call, params: WebhookId) -> dict[str, Any]:
        return self._shown(await self._webhooks.get(params.id))

    async def _update(self, _call: Call, params: UpdateParams) -> dict[str, Any]:
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

        updated = await self._webhooks.update(params.id, change, rotate_secret=params.rotate_secret)
        shown = self._shown(updated)
        return {**shown, "secret": updated.secret} if params.rotate_secret else shown

    async def _remove(self, _call: Call, params: WebhookId) -> dict[str, Any]:
        await self._webhooks.remove(params.id)
        return {"id": params.id}

    async def _test(self, _call: Call, params: WebhookId) -> dict[str, Any]:
        """Deliver a `webhook.test` event, out of turn: `ok`, `status`, `error`, `took_ms`.

        Raises:
            Unreachable: no gateway runs that could.
        """
        await self._webhooks.get(params.id)
        if self._deliverer is None:
            raise Unreachable("nobody delivers webhooks: start `whatsappd gateway`")
        token = secrets.token_hex(8)
        test = self._tests[token] = _Test(params.id)
        self._test_asked.set()
        self._test_asked = trio.Event()
        try:
            with trio.move_on_after(TEST_WITHIN):
                await test.done.wait()
                return {"id": params.id, **test.result}
        finally:
            del self._tests[token]
        raise TimedOut(f"the gateway did not tell the result within {TEST_WITHIN:.0f} s")

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

    # --- the deliverer's end ------------------------------------------------------------------

    def _deliver(self, call: Call, _params: NoParams) -> dict[str, Any]:
        """Become the deliverer, until the connection ends.

        It is notified: `webhook.changed` when there is other work, `webhook.due` when the log has
        grown.

        Raises:
            WrongState: another process delivers.
        """
        holder = self._deliverer
        if holder is not None and holder is not call.connection:
            raise WrongState(
                f"the process {holder.peer.pid} delivers the webhooks already", pid=holder.peer.pid
            )
        if holder is None:
            self._deliverer = call.connection
            call.connection.start_soon(self._hold, call.connection)
        return {"last_seq": self._events.last_seq}

    async def _hold(self, connection: Notifier) -> None:
        log.info("webhooks_delivered_by", pid=connection.peer.pid)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_changes, connection)
                seq = self._events.last_seq
                while True:
                    await connection.notify("webhook.due", {"last_seq": seq})
                    seq = await self._events.wait_beyond(seq)
        finally:
            self._deliverer = None
            log.info("webhooks_delivered_by_nobody", pid=connection.peer.pid)

    async def _tell_changes(self, connection: Notifier) -> None:
        while True:
            webhooks, tests = self._webhooks.changed(), self._test_asked
            await connection.notify("webhook.changed", {})
            async with trio.open_nursery() as either:

                async def first(event: trio.Event) -> None:
                    await event.wait()
                    either.cancel_scope.cancel()

                either.start_soon(first, webhooks)
                either.start_soon(first, tests)

    def _only_deliverer(self, call: Call) -> None:
        if call.connection is not self._deliverer:
            raise Denied("only whoever delivers may do that: call webhook.deliver first")

    async def _work(self, call: Call, _params: NoParams) -> dict[str, Any]:
        self._only_deliverer(call)
        found = await self._webhooks.all()
        return {
            "webhooks": [{**each.as_wire(), "secret": each.secret} for each in found],
            "resend": await self._webhooks.with_resends(),
            "tests": [{"token": token, "id": test.webhook} for token, test in self._tests.items()],
        }

    async def _progress(self, call: Call, params: ProgressParams) -> dict[str, Any]:
        self._only_deliverer(call)
        given = msgspec.structs.asdict(params)
        given["dead"] = [
            Refused(_event(each.event), each.attempts, each.reason) for each in params.dead
        ]
        given["gone"] = (params.gone.after, params.gone.first) if params.gone else None
        return {"cursor": await self._webhooks.progress(Progress(**given))}

    def _tested(self, call: Call, params: TestedParams) -> dict[str, Any]:
        self._only_deliverer(call)
        test = self._tests.get(params.token)
        if test is not None:
            test.result = params.result
            test.done.set()
        return {}

    async def _next_resend(self, call: Call, params: WebhookId) -> dict[str, Any]:
        self._only_deliverer(call)
        due = await self._webhooks.due_resend(params.id)
        return {"letter": due[0], "event": due[1]} if due else {"letter": None, "event": None}

    async def _resent(self, call: Call, params: ResentParams) -> dict[str, Any]:
        self._only_deliverer(call)
        await self._webhooks.resent(params.id, params.letter, params.refusal)
        return {}


def _event(event: dict[str, Any]) -> dict[str, Any]:
    kinds = {"seq": int, "time_ms": int, "company": str, "type": str, "data": dict}
    if any(not isinstance(event.get(name), kind) for name, kind in kinds.items()):
        raise InvalidParams("dead: an event is not as the log has it", field="dead")
    return event


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
