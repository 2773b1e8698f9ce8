"""Delivers all webhooks: keeps a connection to the daemon, and runs a `Delivery` for each webhook.

`gateway.run` starts `run_deliverer` beside the routes. The daemon says what there is to do
(`webhook.work`) and notifies when that changes; this file starts and ends deliveries accordingly,
and makes test deliveries and resends of dead letters.

Only one gateway delivers at a time. It confirms its turn with the daemon every few seconds, and
loses it if it does not, for example because it is frozen. Another gateway asks every second for the
turn, and waits.

On failure: when the connection to the daemon ends, all deliveries end, and the next connection goes
on at the cursors that the daemon has. An unforeseen error in one delivery is logged, and that
delivery begins anew after DEFECT_PAUSE seconds; other webhooks go on.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from whatsappd.api import webhooks as api
from whatsappd.api.declaration import NoParams
from whatsappd.api.webhooks import WebhookWork
from whatsappd.errors import InvalidParams, Unreachable, WhatsappdError
from whatsappd.gateway.daemon_link import ask
from whatsappd.gateway.webhooks.delivery import Delivering, Delivery, disable, made_up
from whatsappd.gateway.webhooks.log_feed import LogFeed
from whatsappd.gateway.webhooks.post import Outcome
from whatsappd.gateway.webhooks.receivers import Receivers
from whatsappd.gateway.webhooks.signing import body_of, id_of
from whatsappd.gateway.webhooks.turn import ConfirmedTurn
from whatsappd.rpc.client import RpcClient, open_client
from whatsappd.rules.webhook_policy import Policy, parse_url

log = structlog.get_logger()

#: Seconds between attempts to become the deliverer.
RETRY_EVERY = 1.0
#: Seconds before a delivery that failed for a defect of ours, or resending that could not be
#: reported, begins anew.
DEFECT_PAUSE = 5.0
STOP_WITHIN = 3.0
DEFAULT_POLICY = Policy()


class _Running(NamedTuple):
    """A delivery, or a resending, that runs: for which revision of the webhook; cancel `scope` and
    wait for `ended`."""

    revision: int
    scope: trio.CancelScope
    ended: trio.Event


class _Stopping:
    """Tells the deliverer to end: what runs under `until` is then cancelled."""

    def __init__(self) -> None:
        self.is_set = False
        self._scope = trio.CancelScope()

    def set(self) -> None:
        self.is_set = True
        self._scope.cancel()

    def until(self) -> trio.CancelScope:
        self._scope = trio.CancelScope()
        if self.is_set:
            self._scope.cancel()
        return self._scope


async def run_deliverer(
    socket: Path, policy: Policy = DEFAULT_POLICY, *, allow_private: bool = False
) -> None:
    """Deliver webhooks until cancelled. While the daemon is away, try to reach it every second.

    When it is cancelled, it first reports to the daemon how far it is, for at most STOP_WITHIN
    seconds.

    Args:
        socket: the daemon's.
        policy: how receivers are treated.
        allow_private: let every webhook reach addresses that are not on the Internet.
    """
    # In a thread: reading the system's certificates takes 30 ms.
    tls = await trio.to_thread.run_sync(ssl.create_default_context)
    receivers = Receivers(policy, tls, allow_private=allow_private)
    stopping, told = _Stopping(), None
    async with trio.open_nursery() as outer:
        # The connection outlives the deliveries, which have something to say at their end.
        with trio.CancelScope(shield=True) as lasting:

            async def watch() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    stopping.set()
                    lasting.deadline = trio.current_time() + STOP_WITHIN

            outer.start_soon(watch)
            while not stopping.is_set:
                reason = await _connected(socket, receivers, stopping)
                if reason != told and not stopping.is_set:
                    log.info("webhooks_wait", reason=reason)
                told = reason
                with stopping.until():
                    await trio.sleep(RETRY_EVERY)
        outer.cancel_scope.cancel()


async def _connected(socket: Path, receivers: Receivers, stopping: _Stopping) -> str:
    """Deliver over one connection to the daemon, until it ends. Returns why it ended."""
    try:
        async with open_client(socket) as client:
            with stopping.until():
                turn = ConfirmedTurn(client)
                await turn.take()
                log.info("webhooks_delivering")
                deliverer = Deliverer(client, Delivering(client, LogFeed(), turn, receivers))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(turn.keep)
                    await deliverer.run()
    except WhatsappdError as error:
        return error.message
    except Exception as error:
        ours = error.split(WhatsappdError) if isinstance(error, ExceptionGroup) else (None, error)
        if ours[1] is not None:
            log.error("webhooks_failed", exc_info=error)
    return "the connection to whatsappd is lost"


class Deliverer:
    """All deliveries, resends and tests over one connection to the daemon."""

    def __init__(self, client: RpcClient, shared: Delivering) -> None:
        self._shared = shared
        self._client = client  # that of `shared`; its notifications are read here
        self._running: dict[str, _Running] = {}
        self._resending: dict[str, _Running] = {}
        self._testing: set[str] = set()
        self._changed = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._supervise, nursery)
            async for notice in self._client.notifications:
                if notice.method == "webhook.due":
                    self._shared.feed.publish(notice.arguments["last_seq"])
                elif notice.method == "webhook.changed":
                    self._changed.set()
            raise Unreachable("the connection to whatsappd is lost")

    async def _supervise(self, nursery: trio.Nursery) -> None:
        while True:
            self._changed = trio.Event()
            work = await ask(self._client, api.WORK, NoParams())
            webhooks = {each.id: each for each in work.webhooks}
            await self._stop_others(webhooks)
            if self._changed.is_set():
                continue  # while the others ended; the cursors above are old now
            for webhook in webhooks.values():
                if webhook.enabled and webhook.id not in self._running:
                    running = _begin(webhook, self._running)
                    nursery.start_soon(self._run_one, webhook, running)
            for test in work.tests:
                if test.token not in self._testing and test.id in webhooks:
                    self._testing.add(test.token)
                    nursery.start_soon(self._test, test.token, webhooks[test.id])
            for identity in work.resend:
                if identity not in self._resending and identity in webhooks:
                    webhook = webhooks[identity]
                    nursery.start_soon(self._resend, webhook, _begin(webhook, self._resending))
            await self._changed.wait()

    async def _stop_others(self, webhooks: dict[str, WebhookWork]) -> None:
        """End what runs for webhooks that were removed, disabled or configured anew, and wait until
        it has reported how far it is.

        Resending dead letters goes on with the new configuration, also for a disabled webhook: the
        daemon has marked which letters are due.
        """
        revisions = {identity: webhook.revision for identity, webhook in webhooks.items()}
        enabled = {identity for identity, webhook in webhooks.items() if webhook.enabled}
        over = [
            running
            for identity, running in self._running.items()
            if identity not in enabled or revisions[identity] != running.revision
        ] + [
            resending
            for identity, resending in self._resending.items()
            if revisions.get(identity) != resending.revision
        ]
        for running in over:
            running.scope.cancel()
        for running in over:
            await running.ended.wait()
            self._changed.set()

    async def _run_one(self, webhook: WebhookWork, running: _Running) -> None:
        """Deliver one webhook until `running.scope` is cancelled or an error was waited out.

        Raises:
            Unreachable: the daemon is gone.
        """
        log.info("webhook_begun", webhook=webhook.id, cursor=webhook.cursor)
        try:
            with running.scope:
                try:
                    unreadable = _unreadable(webhook)
                    if unreadable is None:
                        await Delivery(webhook, self._shared).run()
                    else:
                        log.error("webhook_disabled", webhook=webhook.id, reason=unreadable.error)
                        await disable(self._client, webhook, unreadable)
                except* Unreachable:
                    raise
                except* Exception as group:
                    # A defect, or an unforeseen answer: it must not hold up other webhooks.
                    log.error("webhook_failed", webhook=webhook.id, exc_info=group)
                    await trio.sleep(DEFECT_PAUSE)
        finally:
            del self._running[webhook.id]
            running.ended.set()
            self._changed.set()

    async def _test(self, token: str, webhook: WebhookWork) -> None:
        """Deliver one test event, and tell the daemon what became of it."""
        outcome = _unreadable(webhook)
        if outcome is None:
            async with self._shared.receivers.open(webhook) as receiver:
                outcome = await receiver.post(*made_up("webhook.test"))
        await ask(self._client, api.TESTED, api.TellTest(token=token, result=outcome.told()))
        self._testing.discard(token)

    async def _resend(self, webhook: WebhookWork, resending: _Running) -> None:
        """Post a webhook's dead letters that are due once more, whatever else is being delivered.
        If that cannot be done or reported, it is logged and tried again after DEFECT_PAUSE seconds.

        Raises:
            Unreachable: the daemon is gone.
        """
        identity = webhook.id
        try:
            with resending.scope:
                try:
                    await self._resend_all(webhook)
                except Unreachable:
                    raise
                except WhatsappdError as error:
                    # What is due stays due: not at once, or the receiver gets it again and again.
                    log.warning("webhook_not_resent", webhook=identity, reason=error.message)
                    await trio.sleep(DEFECT_PAUSE)
        finally:
            del self._resending[identity]
            resending.ended.set()
            self._changed.set()  # somebody may have asked again meanwhile

    async def _resend_all(self, webhook: WebhookWork) -> None:
        identity = webhook.id
        async with self._shared.receivers.open(webhook) as receiver:
            while True:
                due = await ask(self._client, api.NEXT_RESEND, api.OneWebhook(id=identity))
                letter, event = due.letter, due.event
                if letter is None or event is None:
                    break
                outcome = await receiver.post(id_of(event), body_of(event))
                log.info("webhook_resent", webhook=identity, seq=event.seq, reason=outcome.error)
                told = api.TellResend(id=identity, letter=letter, refusal=outcome.error)
                await ask(self._client, api.RESENT, told)
                if outcome.is_gone:
                    await disable(self._client, webhook, outcome)
                    await trio.sleep_forever()  # the new configuration ends it


def _unreadable(webhook: WebhookWork) -> Outcome | None:
    """The outcome of every attempt if the webhook's URL is not allowed (any more: an older version
    took it); None: it is allowed."""
    try:
        parse_url(webhook.url)
    except InvalidParams as error:
        return Outcome(None, f"{error.message}; give the webhook another URL", 0)
    return None


def _begin(webhook: WebhookWork, among: dict[str, _Running]) -> _Running:
    begun = among[webhook.id] = _Running(webhook.revision, trio.CancelScope(), trio.Event())
    return begun
