"""`webhook.*`, for the process that delivers: what there is to do, and how far it is.

`gateway.webhooks.deliverer` calls these. There is one deliverer at a time: two would deliver events
twice and out of order.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import msgspec
import structlog
import trio

from whatsappd.api.params import Params
from whatsappd.errors import Denied, InvalidParams, TimedOut, Unreachable, WrongState
from whatsappd.model.event import EVENT_TYPES, SESSION_QR
from whatsappd.rpc.method import Call, Method, NoParams, Notifier
from whatsappd.rules.webhooks import TURN_S
from whatsappd.store.sqlite.dead_letters import Refused
from whatsappd.store.sqlite.events import EventLog
from whatsappd.store.sqlite.webhooks import Progress, Webhook, Webhooks

log = structlog.get_logger()

#: Seconds that a test delivery may take, the deliverer's own time-out included.
TEST_WITHIN = 30.0

Seq = Annotated[int, msgspec.Meta(ge=0)]


class WebhookId(Params):
    id: str


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


class RefusedForGoodParams(Params):
    id: str
    revision: int
    reason: str


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


def method(verb: str, params: type[msgspec.Struct], handler: Any, doc: str) -> Method:
    """A method about webhooks, which concerns all companies.

    What only reads shows URLs, which may hold secrets of the receiver: it is for those who could
    change them.
    """
    return Method(f"webhook.{verb}", params, handler, doc, writes=True)


class WebhookDelivery:
    """Made by `app`, as the daemon's health asks `away_ms` too."""

    def __init__(self, webhooks: Webhooks, events: EventLog) -> None:
        self._webhooks = webhooks
        self._events = events
        self._deliverer: Notifier | None = None
        self._turn = trio.CancelScope()  # of the deliverer
        self._confirmed_at = 0.0
        self._away_since = trio.current_time()
        self._tests: dict[str, _Test] = {}
        self._test_asked = trio.Event()

    @property
    def is_up(self) -> bool:
        """Whether a process delivers."""
        return self._deliverer is not None

    def away_ms(self) -> int | None:
        """For how long nobody has delivered; None: somebody does."""
        if self._deliverer is not None:
            return None
        return round((trio.current_time() - self._away_since) * 1000)

    def methods(self) -> list[Method]:
        return [
            method("deliver", NoParams, self._deliver, "Be the one who delivers."),
            method("work", NoParams, self._work, "What is to deliver, with secrets."),
            method("progress", ProgressParams, self._progress, "How far a webhook is."),
            method(
                "refused_for_good",
                RefusedForGoodParams,
                self._refused_for_good,
                "A receiver wants no more: disable its webhook.",
            ),
            method("tested", TestedParams, self._tested, "What became of a test."),
            method("next_resend", WebhookId, self._next_resend, "A dead letter to try again."),
            method("resent", ResentParams, self._resent, "What became of a resend."),
        ]

    async def test(self, webhook: str) -> dict[str, Any]:
        """Let the deliverer deliver a test event; what it says became of it.

        Raises:
            Unreachable: no gateway runs that could.
            TimedOut: it did not answer in time.
        """
        if self._deliverer is None:
            raise Unreachable("nobody delivers webhooks: start `whatsappd gateway`")
        token = secrets.token_hex(8)
        test = self._tests[token] = _Test(webhook)
        self._test_asked.set()
        self._test_asked = trio.Event()
        try:
            with trio.move_on_after(TEST_WITHIN):
                await test.done.wait()
                return test.result
        finally:
            del self._tests[token]
        raise TimedOut(f"the gateway did not tell the result within {TEST_WITHIN:.0f} s")

    def _deliver(self, call: Call, _params: NoParams) -> dict[str, Any]:
        """Become the deliverer, until the connection ends; or confirm that one still is it.

        It is notified: `webhook.changed` when there is other work, `webhook.due` when the log has
        grown. It confirms its turn within `TURN_S` seconds, or the next who asks gets it.

        Raises:
            WrongState: another process delivers.
        """
        holder, now = self._deliverer, trio.current_time()
        if holder is not None and holder is not call.connection:
            if now - self._confirmed_at < TURN_S:
                raise WrongState(
                    f"the process {holder.peer.pid} delivers the webhooks already",
                    pid=holder.peer.pid,
                )
            log.warning("webhooks_turn_lost", pid=holder.peer.pid, to=call.connection.peer.pid)
            self._turn.cancel()
        self._confirmed_at = now
        if holder is not call.connection:
            self._deliverer = call.connection
            self._turn = trio.CancelScope()
            call.connection.start_soon(self._hold, call.connection, self._turn)
        return {"last_seq": self._events.last_seq}

    async def _hold(self, connection: Notifier, turn: trio.CancelScope) -> None:
        log.info("webhooks_delivered_by", pid=connection.peer.pid)
        try:
            with turn:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell_changes, connection)
                    seq = self._events.last_seq
                    while True:
                        await connection.notify("webhook.due", {"last_seq": seq})
                        seq = await self._events.wait_beyond(seq)
        finally:
            if self._turn is turn:  # else another process has it by now
                self._deliverer = None
                self._away_since = trio.current_time()
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
            "webhooks": [
                {**each.as_wire(), "types": _types(each), "secret": each.secret} for each in found
            ],
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

    async def _refused_for_good(self, call: Call, params: RefusedForGoodParams) -> dict[str, Any]:
        self._only_deliverer(call)
        await self._webhooks.disable(params.id, params.revision, params.reason)
        return {}

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


def _types(webhook: Webhook) -> list[str]:
    """The types of events that a webhook is told of: QR codes only if they were asked for by name,
    because whoever scans one owns the account's messages."""
    types = webhook.wanted.types
    return [each for each in EVENT_TYPES if each != SESSION_QR] if types is None else list(types)


def _event(event: dict[str, Any]) -> dict[str, Any]:
    kinds = {"seq": int, "time_ms": int, "company": str, "type": str, "data": dict}
    if any(not isinstance(event.get(name), kind) for name, kind in kinds.items()):
        raise InvalidParams("dead: an event is not as the log has it", field="dead")
    return event
