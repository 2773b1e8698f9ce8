"""`webhook.*` for the process that delivers webhooks: gives it work, and takes its progress.

`gateway.webhooks.deliverer` calls these. There is one deliverer at a time: two would deliver events
twice and out of order.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
import trio

from whatsappd.api import webhooks as api
from whatsappd.api.declaration import Done, NoParams
from whatsappd.api.events import LoggedEvent
from whatsappd.errors import Denied, TimedOut, Unreachable, WrongState
from whatsappd.model.event import EVENT_TYPES, SESSION_QR
from whatsappd.model.webhook import NewDeadLetter, StoredWebhook, WebhookProgress
from whatsappd.rpc.method import Call, Method, Notifier
from whatsappd.rules.webhook_policy import TURN_S
from whatsappd.store.port import EventLog, WebhookStore

log = structlog.get_logger()

#: Seconds that a test delivery may take, the deliverer's own time-out included.
TEST_WITHIN = 30.0


@dataclass
class _Test:
    """A test delivery that somebody waits for."""

    webhook: str
    done: trio.Event = field(default_factory=trio.Event)
    result: api.DeliveryOutcome | None = None


class WebhookDelivery:
    """The methods of the deliverer. Made by `app`, because health also asks `away_ms`."""

    def __init__(self, webhooks: WebhookStore, events: EventLog) -> None:
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
        """For how many milliseconds no process has delivered; None while one does."""
        if self._deliverer is not None:
            return None
        return round((trio.current_time() - self._away_since) * 1000)

    def methods(self) -> list[Method]:
        return [
            Method(api.DELIVER, self._deliver),
            Method(api.WORK, self._work),
            Method(api.PROGRESS, self._progress),
            Method(api.REFUSED_FOR_GOOD, self._refused_for_good),
            Method(api.TESTED, self._tested),
            Method(api.NEXT_RESEND, self._next_resend),
            Method(api.RESENT, self._resent),
        ]

    async def test(self, webhook: str) -> api.DeliveryOutcome:
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
            if test.result is not None:
                return test.result
        finally:
            del self._tests[token]
        raise TimedOut(f"the gateway did not tell the result within {TEST_WITHIN:.0f} s")

    def _deliver(self, call: Call, _params: NoParams) -> api.DeliveryTurn:
        """Become the deliverer until the connection ends, or confirm that the caller still is.

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
        return api.DeliveryTurn(last_seq=self._events.last_seq)

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

    async def _work(self, call: Call, _params: NoParams) -> api.DeliveryWork:
        self._only_deliverer(call)
        # First: so each test comes with its webhook as it was configured when somebody asked for
        # the test, or later.
        tests = [api.AskedTest(token=token, id=test.webhook) for token, test in self._tests.items()]
        found = await self._webhooks.all()
        last_seq = self._events.last_seq
        return api.DeliveryWork(
            webhooks=[
                api.WebhookWork(
                    **{**webhook_values(each, last_seq), "types": _types(each)}, secret=each.secret
                )
                for each in found
            ],
            resend=await self._webhooks.with_resends(),
            tests=tests,
        )

    async def _progress(self, call: Call, params: api.ReportProgress) -> api.WebhookCursor:
        self._only_deliverer(call)
        given = msgspec.structs.asdict(params)
        given["dead"] = [
            NewDeadLetter(msgspec.structs.asdict(each.event), each.attempts, each.reason)
            for each in params.dead
        ]
        given["gone"] = (params.gone.after, params.gone.first) if params.gone else None
        return api.WebhookCursor(cursor=await self._webhooks.progress(WebhookProgress(**given)))

    async def _refused_for_good(self, call: Call, params: api.RefuseForGood) -> Done:
        self._only_deliverer(call)
        await self._webhooks.disable(params.id, params.revision, params.reason)
        return Done()

    def _tested(self, call: Call, params: api.TellTest) -> Done:
        self._only_deliverer(call)
        test = self._tests.get(params.token)
        if test is not None:
            test.result = params.result
            test.done.set()
        return Done()

    async def _next_resend(self, call: Call, params: api.OneWebhook) -> api.DueResend:
        self._only_deliverer(call)
        due = await self._webhooks.due_resend(params.id)
        if due is None:
            return api.DueResend(letter=None, event=None)
        letter, event = due
        return api.DueResend(letter=letter, event=LoggedEvent(**event))

    async def _resent(self, call: Call, params: api.TellResend) -> Done:
        self._only_deliverer(call)
        await self._webhooks.resent(params.id, params.letter, params.refusal)
        return Done()


def webhook_values(webhook: StoredWebhook, last_seq: int) -> dict[str, Any]:
    """The fields of `api.WebhookInfo`, without the secret."""
    values = webhook._asdict()
    del values["wanted"], values["secret"]
    wanted = webhook.wanted._asdict()
    for name in ("companies", "types"):
        wanted[name] = None if wanted[name] is None else list(wanted[name])
    behind = max(0, last_seq - webhook.cursor)
    return {**values, **wanted, "state": webhook.state, "behind": behind}


def _types(webhook: StoredWebhook) -> list[str]:
    """The types of events that a webhook is told of: QR codes only if they were asked for by name,
    because whoever scans one owns the account's messages."""
    types = webhook.wanted.types
    return [each for each in EVENT_TYPES if each != SESSION_QR] if types is None else list(types)
