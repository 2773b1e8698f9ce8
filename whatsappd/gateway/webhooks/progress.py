"""Reports to the daemon how far a webhook is and how its receiver fares (`webhook.progress`).

Each `delivery` has one `ProgressReports`: it notes there what happens, and runs `run` beside its
deliveries. A report leaves half a second after there is news, or at once. If it fails, what it
counted goes into the next one.
"""

from __future__ import annotations

import structlog
import trio

from whatsappd.api import webhooks as api
from whatsappd.api.webhooks import WebhookWork
from whatsappd.errors import Unreachable, WhatsappdError
from whatsappd.gateway.daemon_link import DaemonCalls, ask
from whatsappd.gateway.webhooks.window import Window

log = structlog.get_logger()

#: Seconds between reports to the daemon. What was delivered since the last one is delivered again
#: if this process is killed.
REPORT_EVERY = 0.5


class ProgressReports:
    """What the daemon knows of a webhook, and what it does not know yet.

    Args:
        window: has the cursor that is reported.
    """

    def __init__(self, client: DaemonCalls, webhook: WebhookWork, window: Window) -> None:
        self._client = client
        self._webhook = webhook
        self._window = window
        self._log = log.bind(webhook=webhook.id)
        #: How the receiver is. Times in milliseconds since the epoch, for people.
        self.failing_since_ms = webhook.failing_since_ms
        self.paused_since_ms = webhook.paused_since_ms
        self.last_success_ms: int | None = None
        self.last_error: str | None = None
        #: Since the last report.
        self.delivered = 0
        self.failures = 0
        self._reported = window.cursor
        self._reporting = trio.Lock()
        self._news = trio.Event()
        self._urgent = trio.Event()

    @property
    def unreported(self) -> int:
        """By how much the cursor has moved since the last report."""
        return self._window.cursor - self._reported

    def tell_soon(self) -> None:
        """There is news: report it within REPORT_EVERY seconds."""
        self._news.set()

    def tell_now(self) -> None:
        """There is news that somebody may wait for: report it at once."""
        self._news.set()
        self._urgent.set()

    async def run(self) -> None:
        """Report whenever there is news, until cancelled.

        Raises:
            Unreachable: the daemon is gone.
        """
        while True:
            await self._news.wait()
            with trio.move_on_after(REPORT_EVERY):
                await self._urgent.wait()
            self._news, self._urgent = trio.Event(), trio.Event()
            try:
                await self.report()
            except Unreachable:
                raise
            except WhatsappdError as error:
                # Removed meanwhile, or the disk is full: what counts is still here.
                self._log.warning("webhook_progress_not_kept", reason=error.message)
                await trio.sleep(REPORT_EVERY)
                self._news.set()

    async def report(
        self, dead: list[api.RefusedEvent] | None = None, gone: api.GoneEvents | None = None
    ) -> None:
        """Report now.

        Args:
            dead: events that become dead letters with it.
            gone: events that retention deleted before they were delivered.

        Raises:
            WhatsappdError: the daemon did not keep the report.
        """
        async with self._reporting:
            await trio.lowlevel.checkpoint_if_cancelled()
            delivered, failures, cursor = self.delivered, self.failures, self._window.cursor
            # They count as told once they are sent. If this is cancelled while it waits for the
            # answer, the daemon counts them all the same: the last report must not repeat them.
            self.delivered = self.failures = 0
            report = api.ReportProgress(
                id=self._webhook.id,
                revision=self._webhook.revision,
                cursor=cursor,
                delivered=delivered,
                failures=failures,
                last_success_ms=self.last_success_ms,
                failing_since_ms=self.failing_since_ms,
                paused_since_ms=self.paused_since_ms,
                last_error=self.last_error,
                dead=dead or [],
                gone=gone,
            )
            try:
                await ask(self._client, api.PROGRESS, report)
            except WhatsappdError:
                self.delivered += delivered
                self.failures += failures
                raise
            self._reported = cursor

    async def report_last(self) -> None:
        """Report what the daemon does not know yet, if it can be reached."""
        if self._news.is_set() or self.unreported > 0:
            try:
                await self.report()
            except WhatsappdError as error:
                self._log.debug("webhook_progress_not_kept", reason=error.message)
