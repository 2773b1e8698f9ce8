"""Delivers one webhook: reads events from the log, posts them, retries, and reports progress.

Each event arrives at least once, and those of one company in their order. `deliverer` starts a
`Delivery` for each webhook that is enabled, and a new one when it is configured anew.

`progress` reports how far it is and how the receiver fares: soon after there is news, at once when
the webhook pauses or resumes, and when it ends.

On failure: an attempt that fails is tried again, with growing pauses. If the receiver takes a ping
but not this event, the event becomes a dead letter. If the receiver fails for long, the webhook
pauses: only its oldest event is tried.
"""

from __future__ import annotations

import random
import secrets
import time
from typing import NamedTuple

import structlog
import trio

from whatsappd.api import events
from whatsappd.api import webhooks as api
from whatsappd.api.events import LoggedEvent
from whatsappd.api.webhooks import WebhookWork
from whatsappd.errors import QueueFull, StoreFailed
from whatsappd.gateway.daemon_link import DaemonCalls, ask
from whatsappd.gateway.webhooks.log_feed import LogFeed
from whatsappd.gateway.webhooks.post import CONNECTIONS, Outcome, Receiver
from whatsappd.gateway.webhooks.progress import ProgressReports
from whatsappd.gateway.webhooks.receivers import Receivers
from whatsappd.gateway.webhooks.signing import body_of, id_of
from whatsappd.gateway.webhooks.turn import ConfirmedTurn
from whatsappd.gateway.webhooks.window import Window
from whatsappd.rules.webhook_policy import OVERLOADED

log = structlog.get_logger()

#: Events that are read and have not ended; one company's troubles may hold up the others after it.
READ_AHEAD = 300
PAGE = 100
#: Events that were none of ours, and seconds, after which their passing is reported too.
SKIPPED_MANY = 1000
SKIPPED_LONG = 5.0
REPORT_WITHIN = 1.0
#: Seconds for which events gather before they are read.
GATHER = 0.01


class Delivering(NamedTuple):
    """What all deliveries over one connection to the daemon share."""

    client: DaemonCalls
    feed: LogFeed
    turn: ConfirmedTurn
    receivers: Receivers


class Delivery:
    """`run` it once. `webhook` is as the daemon's `webhook.work` has it."""

    def __init__(self, webhook: WebhookWork, shared: Delivering) -> None:
        self._webhook = webhook
        self._client = shared.client
        self._feed = shared.feed
        self._turn = shared.turn
        self._receivers = shared.receivers
        self._policy = shared.receivers.policy
        self._log = log.bind(webhook=webhook.id)
        self._window = Window(webhook.cursor)
        self._progress = ProgressReports(shared.client, webhook, self._window)
        self._gap_told = 0
        self._room = trio.Event()
        self._attempts = trio.CapacityLimiter(CONNECTIONS)
        self._not_before = 0.0  # what the receiver asked for, by trio's clock
        # By trio's clock, which nobody sets: a delivery that begins anew counts from then on.
        self._failing_since = trio.current_time()
        self._resumed = trio.Event()

    async def run(self) -> None:
        """Deliver until cancelled; then report once more, for at most REPORT_WITHIN seconds.

        Raises:
            Unreachable: the daemon is gone.
        """
        async with self._receivers.open(self._webhook) as receiver:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._progress.run)
                    await self._read(receiver, nursery)
            finally:
                with trio.move_on_after(REPORT_WITHIN, shield=True):
                    await self._progress.report_last()

    # --- from the log -------------------------------------------------------------------------

    async def _read(self, receiver: Receiver, nursery: trio.Nursery) -> None:
        """Read the log for ever, at most READ_AHEAD events ahead of the receiver, and start a task
        for each company that has events."""
        window, webhook = self._window, self._webhook
        while True:
            while len(window) >= READ_AHEAD:
                self._room = trio.Event()
                await self._room.wait()
            wanted = events.ReadEvents(
                after=window.read, limit=PAGE, companies=webhook.companies, types=webhook.types
            )
            page = await ask(self._client, events.READ, wanted)
            # Several pages name the same gap: all that begin before its end.
            if page.gap is not None and page.gap > self._gap_told:
                if window.read > 0:
                    await self._tell_gap(max(window.read, self._gap_told), page.gap)
                self._gap_told = page.gap
            for company in window.add(page.events, page.next):
                nursery.start_soon(self._deliver_company, receiver, company)
            if page.next >= page.last_seq:
                await self._until_more()
            elif self._progress.unreported >= SKIPPED_MANY:
                self._progress.tell_soon()

    async def _until_more(self) -> None:
        """Wait for new events. Have it reported if many others were passed over, or long ago."""
        window = self._window
        if self._progress.unreported >= SKIPPED_MANY:
            self._progress.tell_soon()
        with trio.move_on_after(SKIPPED_LONG):
            await self._feed.wait_beyond(window.read)
            # A page for what comes in this time, rather than one for each event and webhook.
            await trio.sleep(GATHER)
            return
        if self._progress.unreported > 0:
            self._progress.tell_soon()
        await self._feed.wait_beyond(window.read)

    async def _tell_gap(self, after: int, first: int) -> None:
        """Report that retention deleted events before they were delivered; the daemon counts them
        and raises an alert."""
        self._log.error("webhook_events_gone", after=after, first=first)
        await self._progress.report(gone=api.GoneEvents(after=after, first=first))

    # --- to the receiver ----------------------------------------------------------------------

    async def _deliver_company(self, receiver: Receiver, company: str) -> None:
        """Deliver a company's events one after the other, until none is left in the window."""
        while (event := self._window.head(company)) is not None:
            await self._deliver(receiver, event)
            self._window.end(company)
            self._room.set()
            self._progress.tell_soon()

    async def _deliver(self, receiver: Receiver, event: LoggedEvent) -> None:
        """Post an event until the receiver takes it, or it becomes a dead letter.

        Between two attempts there is a pause (`_pause`).
        """
        body, failures, is_receiver_well = body_of(event), 0, False
        while True:
            outcome = await self._attempt(receiver, event, id_of(event), body)
            if outcome.ok:
                self._progress.delivered += 1
                self._succeeded(receiver)
                return
            failures += 1
            await self._failed(event, outcome, failures)
            # The receiver took a ping just now and refused the event again: the event is to blame,
            # not the receiver.
            if is_receiver_well and await self._bury(event, failures, outcome):
                return
            if self._policy.is_hopeless(failures) and not is_receiver_well:
                is_receiver_well = await self._accepts_ping(receiver)
                if is_receiver_well:
                    continue
            else:
                is_receiver_well = False
            if await self._pause(receiver, event, outcome, failures, body):
                return

    async def _pause(
        self, receiver: Receiver, event: LoggedEvent, outcome: Outcome, failures: int, body: bytes
    ) -> bool:
        """Wait until the next attempt is due. Returns True if the receiver took the event
        meanwhile.

        When the receiver recovers during the pause, as another event shows, there is one extra
        attempt at once. If that fails, it does not count as one of the event's failures.
        """
        is_probe = outcome.is_receivers and event.seq == self._window.oldest
        wait_ms = self._policy.wait_ms(failures, random.random(), is_probe=is_probe)
        until = trio.current_time() + wait_ms / 1000
        if await self._receivers.recoveries.wait(receiver.origin, until):
            outcome = await self._attempt(receiver, event, id_of(event), body)
            if outcome.ok:
                self._progress.delivered += 1
                self._succeeded(receiver)
                return True
            await self._failed(event, outcome, failures)
            await trio.sleep_until(until)
        return False

    async def _attempt(
        self, receiver: Receiver, event: LoggedEvent | None, identity: str, body: bytes
    ) -> Outcome:
        """Post once, as soon as that is allowed.

        It waits while the webhook is paused (unless this is the oldest event), while the receiver
        asked to be left alone, for one of its connections, and for this process's turn.

        Args:
            event: the one that is delivered; None: a ping, which a pause does not hold up.
        """
        while True:
            while event is not None and self._has_to_wait(event):
                await self._resumed.wait()
            await trio.sleep_until(self._not_before)
            async with self._attempts:
                if trio.current_time() < self._not_before:
                    continue  # another event was told to wait meanwhile
                # If this process was frozen, another gateway may deliver by now.
                await self._turn.held()
                outcome = await receiver.post(identity, body)
            if not outcome.ok and outcome.retry_after_ms is not None:
                self._not_before = trio.current_time() + outcome.retry_after_ms / 1000
            return outcome

    def _has_to_wait(self, event: LoggedEvent) -> bool:
        return self._progress.paused_since_ms is not None and event.seq != self._window.oldest

    async def _accepts_ping(self, receiver: Receiver) -> bool:
        """Post a ping. Returns whether the receiver took it: then it is well, and it is the event
        that it cannot take."""
        outcome = await self._attempt(receiver, None, *made_up("webhook.ping"))
        if outcome.ok:
            self._succeeded(receiver)
        return outcome.ok

    async def _bury(self, event: LoggedEvent, failures: int, outcome: Outcome) -> bool:
        """Make the event a dead letter. Returns False if the daemon cannot keep it: then the event
        is tried again."""
        assert outcome.error is not None
        refused = api.RefusedEvent(event=event, attempts=failures, reason=outcome.error)
        try:
            await self._progress.report([refused])
        except (QueueFull, StoreFailed) as error:
            # Nothing is thrown away: it is tried again.
            self._log.error("webhook_dead_letter_not_kept", seq=event.seq, reason=error.message)
            self._progress.last_error = error.message
            return False
        self._log.warning(
            "webhook_dead_letter", seq=event.seq, attempts=failures, reason=outcome.error
        )
        return True

    def _succeeded(self, receiver: Receiver) -> None:
        self._progress.last_success_ms = _now_ms()
        self._attempts.total_tokens = CONNECTIONS
        if self._progress.failing_since_ms is not None:
            self._progress.failing_since_ms = None
            self._receivers.recoveries.happened(receiver.origin)
        if self._progress.paused_since_ms is not None:
            self._progress.paused_since_ms = None
            self._log.info("webhook_resumed")
            self._resumed.set()
            self._progress.tell_now()
        self._progress.tell_soon()

    async def _failed(self, event: LoggedEvent, outcome: Outcome, failures: int) -> None:
        now = _now_ms()
        self._progress.failures += 1
        self._progress.last_error = outcome.error
        if self._progress.failing_since_ms is None:
            self._progress.failing_since_ms, self._failing_since = now, trio.current_time()
        self._log.info(
            "webhook_attempt_failed", seq=event.seq, attempt=failures, reason=outcome.error
        )
        if outcome.is_gone:
            await self._end_for_good(outcome)
        if outcome.status in OVERLOADED:
            # It said that it has too much to do: one request at a time until it takes one.
            self._attempts.total_tokens = 1
        failing_for = trio.current_time() - self._failing_since
        if self._progress.paused_since_ms is None and self._policy.should_pause(failing_for):
            self._progress.paused_since_ms = now
            self._resumed = trio.Event()
            self._log.warning("webhook_paused", reason=outcome.error)
            self._progress.tell_now()
        self._progress.tell_soon()

    async def _end_for_good(self, outcome: Outcome) -> None:
        """The receiver answered 410: have the webhook disabled, and wait to be cancelled."""
        self._log.warning("webhook_disabled", reason=outcome.error)
        await disable(self._client, self._webhook, outcome)
        await trio.sleep_forever()


async def disable(client: DaemonCalls, webhook: WebhookWork, outcome: Outcome) -> None:
    """Have the daemon disable the webhook, because its receiver wants no more events."""
    assert outcome.error is not None
    refused = api.RefuseForGood(id=webhook.id, revision=webhook.revision, reason=outcome.error)
    await ask(client, api.REFUSED_FOR_GOOD, refused)


def made_up(kind: str) -> tuple[str, bytes]:
    """The identity and the body of an event that is not in the log: a ping or a test."""
    token = secrets.token_hex(8)
    event = LoggedEvent(seq=0, time_ms=_now_ms(), company="", type=kind, data={})
    return f"{kind.partition('.')[2]}_{token}", body_of(event)


def _now_ms() -> int:
    return int(time.time() * 1000)
