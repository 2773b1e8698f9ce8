"""What must survive, as contracts: what the daemon's other rooms know of the store.

Each protocol is used by somebody else, and each operation is atomic and durable: it happened as a
whole when it returns, and not at all if it raised. A caller who is cancelled while it waits for the
disk may find it done. `store.sqlite` implements all of it, and so does `store.memory` for tests;
`tests/unit/store/contract` is the suite that both pass.

Any operation that writes may raise StoreFailed: then nothing of it was kept. What answers without
`await` answers from this process's copy of what is committed: an implementation that several
daemons share keeps that copy for the companies that it runs.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

import trio

from whatsappd.model.access import KeyScope
from whatsappd.model.api_key import ApiKey
from whatsappd.model.arrival import Arrival
from whatsappd.model.audit import AuditNote, AuditRecord
from whatsappd.model.consumer import Consumer
from whatsappd.model.event import Draft, Event
from whatsappd.model.message import NewMessage, OutboxState, Row
from whatsappd.model.stored_event import EventBatch, EventBounds
from whatsappd.model.webhook import (
    StoredDeadLetter,
    StoredWebhook,
    WebhookConfig,
    WebhookProgress,
)
from whatsappd.rules.account_binding import BoundAccount, Standing
from whatsappd.rules.alerts import AlertChange, AlertFinding, AlertKey

# --- the outbox -----------------------------------------------------------------------------------


class Handover(NamedTuple):
    """One attempt: the row, and the secret that identifies the attempt afterwards.

    `of_this_boot`: the host did not go down since, as far as is known.
    """

    row: Row
    secret: bytes
    of_this_boot: bool


class OutboxSubmissions(Protocol):
    """What senders do: every message is durable before its sender has the answer.

    `cancel` and `resolve` raise UnknownMessage, and WrongState if the row's state does not allow
    it (see `rules.delivery`); they return the row as it is then.
    """

    async def accept(self, new: NewMessage, queue_limit: int) -> tuple[Row, bool]:
        """The row of `new`, durable, and whether it was made just now.

        With a `key`, the same company, key, chat and content give the same row, any
        number of times, for as long as the row is kept; the queue may be full meanwhile.

        Raises:
            KeyConflict: the key was used for other content.
            QueueFull: `queue_limit` rows of the company are queued or being sent, or what it or
                its sender has stored and never sent is too much (COMPANY_BYTES, CALLER_BYTES in
                `rules.bounds`).
            StoreFailed: it was not accepted.
        """
        ...

    async def find(self, new: NewMessage) -> Row | None:
        """The row that `accept` made of the same key before; None if there is none.

        Raises:
            KeyConflict: it was made of other content.
        """
        ...

    async def cancel(self, row_id: str) -> Row:
        """Makes sure that a queued row will not be sent."""
        ...

    async def resolve(self, row_id: str, decision: str) -> Row:
        """Records what a person decided about an uncertain row: `sent`, `resend` or `failed`.

        Raises:
            InvalidParams: another decision.
        """
        ...


class OutboxHandovers(Protocol):
    """What each company's dispatcher takes from the outbox, and tells it about each attempt.

    Methods that change a row raise UnknownMessage, and WrongState if the row's state does not allow
    the change (see `rules.delivery`); they return the row as it is then.
    """

    async def pending(
        self,
        company: str,
        limit: int,
        *,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        known_only: bool = False,
        others_first: bool = False,
    ) -> Sequence[Row]:
        """The rows that may be handed over now, oldest first.

        Order is kept per chat: a row that is being sent, or waits for its next try, holds back the
        later ones of its chat, and no others. Either answers to people who wrote lately, if there
        are any (see `rules.reply_priority`), or others: never both at once.

        Args:
            only: these chats, if given.
            without: chats to leave out.
            known_only: leave out people with whom the company never exchanged a message.
            others_first: answers only if there is nothing else.
        """
        ...

    async def next_due_ms(self, company: str, looked_ms: int) -> int | None:
        """When the next row is due that was postponed beyond `looked_ms` (epoch milliseconds).

        Ask with a time before the look at `pending` that found nothing: what came due since would
        be neither in that look nor in this answer.
        """
        ...

    def version(self, company: str) -> int:
        """Grows with every change of the company's rows; see `wait_changed`."""
        ...

    async def wait_changed(self, company: str, version: int) -> int:
        """Waits until a row of the company changed since `version`; returns the new version.

        Take the version first, then look at the rows, then wait: no change is missed.
        """
        ...

    def replies(self, company: str) -> int:
        """Grows whenever one more answer is queued (see `rules.reply_priority`)."""
        ...

    async def readdress(self, company: str, address: str, account: str) -> Sequence[Row]:
        """WhatsApp says that `address` means `account`: open rows go there from now on.

        Returns the rows that this changed.
        """
        ...

    async def begin(self, row_id: str) -> Handover:
        """Makes the row `sending`: hand it to the worker only after this has returned.

        A row whose time to live has passed becomes `expired` instead, and WrongState is raised.
        """
        ...

    async def acknowledge(self, row_id: str, message_id: str, sent_ms: int) -> Row:
        """WhatsApp's server took it. Receipts that came earlier are applied at once."""
        ...

    async def acknowledge_and_begin(
        self, row_id: str, message_id: str, sent_ms: int, following: str
    ) -> tuple[Row, Handover | None]:
        """`acknowledge`, and `begin` of the row `following`, in one transaction.

        The attempt is None if `following` was cancelled meanwhile, or its time to live has passed;
        the ack is recorded nevertheless.
        """
        ...

    async def fail(self, row_id: str, reason: str) -> Row:
        """It will never be sent: refused for good."""
        ...

    async def postpone(self, row_id: str, reason: str, not_before_ms: int) -> Row:
        """It was certainly not sent, and is queued again for `not_before_ms`."""
        ...

    async def mark_uncertain(
        self, row_id: str, reason: str, *, message_id: str | None = None, not_before_ms: int = 0
    ) -> Row:
        """Nobody knows whether it was sent. If the sender chose `resend`, it is queued again.

        Args:
            message_id: WhatsApp's id of the attempt, if it is known: receipts then resolve it.
            not_before_ms: when a resend may be tried.
        """
        ...

    async def mark_untraceable(self, row_id: str, reason: str) -> Row:
        """What could have told the attempt's fate is gone: `interrupted` names it no more.

        A row that is `sending` becomes `uncertain`; another one stays as it is.
        """
        ...

    async def requeue_unsent(self, row_id: str, reason: str) -> Row:
        """Proof turned up that an uncertain row was not sent: it is queued again."""
        ...

    async def identify(self, row_id: str, message_id: str) -> Row:
        """WhatsApp's id of an attempt became known without an ack: receipts find the row now."""
        ...

    async def interrupted(self, company: str | None = None) -> Sequence[Handover]:
        """The rows that are `sending`, or `uncertain` without a known id, with their attempts'
        secrets: what to look up in the account's database after a crash. None: all companies."""
        ...


class OutboxView(Protocol):
    """Looking at the outbox, and waiting for what becomes of a message.

    `counts`, `accepted`, `entered` and `companies` answer at once, and tell all that this process
    was told to be committed.
    """

    async def get(self, row_id: str) -> Row:
        """Raises UnknownMessage."""
        ...

    async def list_rows(
        self,
        company: str | None = None,
        states: Collection[OutboxState] | None = None,
        *,
        before: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Row]:
        """Rows, newest first; with `after`, oldest first. Page with the last row's id.

        Takes milliseconds, whatever is asked for and however many rows there are.

        Raises:
            UnknownMessage: `before` or `after` cannot be a row's id.
            TimedOut: it took too long and was given up.
        """
        ...

    async def wait(self, row_id: str, states: Collection[OutboxState]) -> Row:
        """Waits until the row is in one of `states`, or can no longer get there; returns it.

        Being cancelled changes nothing about the row. A row that retention deletes meanwhile is
        returned as it last was.

        Raises:
            UnknownMessage: there is no such row.
        """
        ...

    async def wait_confirmed(self, company: str, since_ms: int) -> None:
        """Waits until every message that was handed to WhatsApp since then has a receipt."""
        ...

    def counts(self, company: str) -> dict[OutboxState, int]:
        """The company's rows by state; states without any are left out."""
        ...

    def accepted(self, company: str) -> int:
        """Rows accepted since the daemon started."""
        ...

    def entered(self, company: str) -> dict[OutboxState, int]:
        """How often one of the company's rows came into a state since the daemon started.

        A row that is postponed comes into `queued` and `sending` again.
        """
        ...

    def companies(self) -> list[str]:
        """The companies that have rows."""
        ...

    async def oldest_queued(self) -> dict[str, int]:
        """When the row at the head of each company's queue was accepted; companies that have
        nothing queued are left out."""
        ...

    async def still_queued(self, row_ids: Collection[str]) -> Set[str]:
        """Those of the rows that are queued, and whose time has not passed."""
        ...

    async def sent_times(self, company: str, since_ms: int) -> Sequence[tuple[str, int]]:
        """(chat, time) of the rows handed to WhatsApp since then: a limiter's memory.

        Of a row that was tried several times, the last attempt.
        """
        ...

    async def cold_times(self, company: str, since_ms: int, limit: int) -> Sequence[int]:
        """When rows were handed to WhatsApp since then that were a first message to somebody: the
        newest `limit` of them, the newest first."""
        ...

    def report_bytes(self) -> list[dict[str, Any]]:
        """How full the bounds on messages that never left are, for `daemon.limits`."""
        ...


class OutboxMaintenance(Protocol):
    """Changes of many rows: as time passes, by retention, before a company is removed.

    Done in steps, so that those who send meanwhile notice little of it: cancelled, or if one step
    fails, the steps before it stay done.
    """

    async def expire(self, now_ms: int) -> int:
        """Ends the queued rows whose time has passed; returns how many."""
        ...

    async def cancel_queued(self, company: str, reason: str) -> int:
        """Cancels all that the company has queued; returns how many."""
        ...

    async def shift(self, by_ms: int) -> None:
        """The clock was set by so much: what waits in the queue expires, and is due, as before."""
        ...

    async def retain(self, max_age_ms: int) -> int:
        """Deletes finished rows (and receipts without a row) that nothing changed for so long.

        Their keys are forgotten with them. Returns how many rows were deleted.
        """
        ...


class Outbox(Protocol):
    """Every accepted message, by who uses it."""

    @property
    def submissions(self) -> OutboxSubmissions: ...

    @property
    def handovers(self) -> OutboxHandovers: ...

    @property
    def view(self) -> OutboxView: ...

    @property
    def maintenance(self) -> OutboxMaintenance: ...


# --- the event log --------------------------------------------------------------------------------


class EventLog(Protocol):
    """Everything that happened, under one global sequence number without a hole.

    An event is durable before anybody sees it. Subscribers read with a cursor each.
    """

    @property
    def last_seq(self) -> int:
        """The newest event's number; 0 if there never was one."""
        ...

    @property
    def first_seq(self) -> int:
        """The oldest event that still exists; `last_seq + 1` if there is none.

        Behind it, some of a company's may be gone that others' outlived.
        """
        ...

    @property
    def newest_at_opening_ms(self) -> int:
        """When the newest event was logged, as of opening the log; epoch milliseconds, 0: none."""
        ...

    @property
    def deletions(self) -> int:
        """Grows whenever events are deleted: what was read before may hold some that are gone."""
        ...

    @property
    def tail_events(self) -> int:
        """Events held in memory."""
        ...

    @property
    def tail_bytes(self) -> int:
        """Packed bytes of the events held in memory."""
        ...

    async def append(self, *drafts: Draft) -> list[Event]:
        """Logs `drafts` in this order, with nothing between them; returns them when durable.

        Raises:
            TooLarge: one exceeds MAX_EVENT_BYTES. None was logged.
        """
        ...

    async def wait_beyond(self, seq: int) -> int:
        """Waits until the log has an event behind `seq`; returns `last_seq`.

        A checkpoint also when there is one already.
        """
        ...

    async def read(
        self,
        after: int,
        limit: int,
        *,
        companies: Collection[str] | None = None,
        types: Collection[str] | None = None,
        codes: Collection[str] | None = None,
    ) -> EventBatch:
        """The events behind the cursor `after`, in order: at most `limit`, and a mebibyte.

        Go on with `EventBatch.last`. No event is missed so, and it always moves: a batch without
        events means that there is no more, up to the newest of now. It costs what it returns,
        whatever the filter leaves out.

        Args:
            after: 0 begins with the oldest that exists.
            companies: those companies' events only. None: all.
            types: those types' events only. None: all.
            codes: of `session.qr`, those companies' only. None: all.

        Raises:
            InvalidParams: `after` lies beyond the newest event: the cursor is of another log (or
                the store was restored from a backup).
            TimedOut: it took too long and was given up.
            StoreFailed: the store cannot be read.
        """
        ...

    def read_tail(
        self,
        after: int,
        limit: int,
        *,
        companies: Collection[str] | None = None,
        types: Collection[str] | None = None,
        codes: Collection[str] | None = None,
    ) -> EventBatch | None:
        """What is in memory behind `after`, at once; None if that is not in memory.

        As `read`, but the batch may be empty although there is more.
        """
        ...

    def keep(self, bounds: EventBounds) -> None:
        """Keep so much from now on: what is logged makes room for itself. What is too much
        already, or too old, goes with the next `retain`.

        Each company has its own history: what one of them logs never deletes an event of another
        that has less than its share.
        """
        ...

    async def retain(self) -> int:
        """Deletes the events beyond the bounds, the oldest first; returns how many.

        Readers that had not read them are told by `EventBatch.gap`. Cancelled, it has deleted some.
        """
        ...


class Consumers(Protocol):
    """Named cursors of those who come back: see `model.consumer`."""

    async def place(self, name: str, after: int | None = None) -> int:
        """The cursor of the consumer `name`.

        A new one begins behind `after`, or at the present end; a known one keeps its cursor.

        Before consumers had owners, everybody who might do everything shared the bare names.
        Whoever comes for one of those for the first time gets one of their own that begins where
        the shared one was.

        Raises:
            InvalidParams: the name or `after` cannot be, or its owner has too many (CONSUMERS in
                `rules.bounds`).
        """
        ...

    async def acknowledge(self, name: str, seq: int) -> int:
        """Moves the cursor of `name` to `seq`, never back; returns where it is.

        Raises:
            UnknownConsumer: nobody made it.
            InvalidParams: `seq` lies beyond the newest event.
        """
        ...

    async def all(self) -> list[Consumer]:
        """Every consumer, webhooks' cursors included, by name."""
        ...

    async def forget(self, name: str) -> None:
        """Deletes a consumer's saved cursor. Raises UnknownConsumer."""
        ...

    async def count_by_owner(self) -> dict[str, int]:
        """How many each owner has, without webhooks' cursors; root's and the daemon's own user's
        are under `uid:0`."""
        ...


class Inbound(Protocol):
    """What arrives from WhatsApp, which tells everything once."""

    async def taken(self, company: str) -> int:
        """The number of the last event that was taken; 0 if there never was one.

        What a cancelled `take` left to be written counts.
        """
        ...

    async def last_ms(self, company: str) -> int | None:
        """When anything was taken last, in epoch milliseconds; None if nothing ever was."""
        ...

    async def take(self, company: str, arrivals: Sequence[Arrival]) -> None:
        """Stores all that arrived, in one transaction: the events, what receipts tell the outbox,
        whom the company knows from now on, and how far the worker's numbering was taken.

        What was taken before is left out, by its number.

        Raises:
            InvalidParams: a receipt is of an unknown kind.
            TooLarge: an event exceeds MAX_EVENT_BYTES.
            StoreFailed: nothing of it was stored.
        """
        ...


# --- companies ------------------------------------------------------------------------------------


class StoredCompany(NamedTuple):
    """A company as it is stored. Times are epoch milliseconds."""

    company: str
    wanted: bool  # should be running, also after a reboot
    created_ms: int
    settings: dict[str, Any]  # what was configured for it alone; plain JSON values
    jid: str | None
    lid: str | None
    push_name: str | None
    last_connected_ms: int | None
    account: str | None  # the account it is bound to, or was linked with last, without a device
    account_lid: str | None
    claimed: bool  # whether that account is the company's own, and no other's

    @property
    def bound(self) -> BoundAccount | None:
        """None if it was never linked, or `start --new-account` ended what was."""
        if self.account is None and self.account_lid is None:
            return None
        return BoundAccount(self.account, self.account_lid)


class AccountClaim(NamedTuple):
    """What a company is to the account that it is linked with.

    `owner`: the other company that has it, if it is taken. `bound`: the company's own account.
    """

    standing: Standing
    owner: str | None
    bound: BoundAccount | None


class Companies(Protocol):
    """The companies: which there are, whether they should be running, and who they are on WhatsApp.

    All but `all` and `put_wanted` raise UnknownCompany.
    """

    async def all(self) -> list[StoredCompany]:
        """Every company, by name."""
        ...

    async def get(self, company: str) -> StoredCompany: ...

    async def put_wanted(self, company: str, wanted: bool) -> StoredCompany:
        """Stores whether it should be running, and makes it if it is new."""
        ...

    async def put_unwanted(self, company: str) -> StoredCompany:
        """Stores that it should not be running."""
        ...

    async def put_identity(
        self, company: str, *, jid: str | None, lid: str | None, push_name: str | None
    ) -> StoredCompany:
        """Stores who it is on WhatsApp; all None after an unlinking."""
        ...

    async def put_connected(self, company: str, time_ms: int) -> StoredCompany:
        """Stores when it was last connected."""
        ...

    async def settings(self, company: str) -> dict[str, Any]:
        """What was configured for it alone."""
        ...

    async def put_settings(
        self,
        company: str,
        changes: Mapping[str, Any],
        then: Callable[[dict[str, Any]], object] | None = None,
    ) -> dict[str, Any]:
        """Changes the named settings (None removes one); returns all.

        Args:
            then: given all of them as soon as they are stored, also if the caller was cancelled
                meanwhile. It must not raise.
        """
        ...

    async def look_at_account(self, company: str, linked: BoundAccount) -> AccountClaim:
        """What the company is to `linked`; nothing is changed."""
        ...

    async def claim_account(self, company: str, linked: BoundAccount) -> AccountClaim:
        """The same, and if the account may be the company's, it is from now on.

        The people that the company knew with another account are put away, and come back with it.
        """
        ...

    async def give_account_up(self, company: str) -> None:
        """Another company may have the account now. What was written for it is still told from
        what is written for another: see `rules.account_binding`."""
        ...

    async def leave_account(self, company: str) -> StoredCompany:
        """The company may be linked with any account next. The people it knew are put away."""
        ...


class Acquaintances(Protocol):
    """With whom each company has exchanged messages: what makes a message outreach, or not.

    Chats are JIDs without a device. Almost every question is about somebody known already.
    """

    async def strangers(self, company: str, chats: Collection[str]) -> set[str]:
        """Those of `chats` with whom the company has never exchanged a message."""
        ...

    async def add(self, company: str, chats: Collection[str]) -> None:
        """From now on these are no strangers."""
        ...

    def follow(self, follower: Callable[[str], object]) -> None:
        """Calls `follower` with each company that knows somebody new, or others than before because
        its account changed."""
        ...


class Removals(Protocol):
    """Removing a company: all that is kept of it goes, and a new one of its name finds nothing.

    The numbers of its events are given to no others, and readers of all companies are told of a
    gap. The audit trail stays.
    """

    async def pending(self) -> list[str]:
        """The companies of which something may be left, by name."""
        ...

    async def begin(self, company: str, note: AuditNote | None = None) -> None:
        """The company is none any more, whatever happens from here on; call `finish`.

        API keys that were for it alone are revoked, and webhooks for it alone told nothing more.
        Its worker must be gone, and nobody may write anything of it again.

        Args:
            note: the audit trail's line, stored in the same transaction.
        """
        ...

    async def finish(self, company: str) -> None:
        """Deletes what is left, its directory included. May be called again, also if nothing is.

        Raises:
            StoreFailed: something could not be deleted; the rest is still there.
        """
        ...


# --- access, and who did what ---------------------------------------------------------------------


class KeyRing(Protocol):
    """API keys: who may come in through the gateway, and what for."""

    def find(self, identity: str) -> ApiKey | None:
        """The key of that id, if there is one."""
        ...

    def follow(self, follower: Callable[[str], object]) -> Callable[[], None]:
        """Calls `follower` with the id of each key that is revoked or narrowed, as soon as it is;
        call what is returned to end that."""
        ...

    async def list_all(self) -> list[ApiKey]:
        """Every key, the oldest first."""
        ...

    async def create(
        self,
        name: str,
        scope: KeyScope,
        companies: tuple[str, ...] | None,
        note: AuditNote | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key, and its text: the only time that anybody sees it.

        Args:
            note: the audit trail's line, stored in the same transaction.

        Raises:
            InvalidParams: there are too many keys, or the name cannot be one.
        """
        ...

    async def revoke(self, identity: str, note: AuditNote | None = None) -> ApiKey:
        """Ends a key: from now on nobody gets in with it. Its own consumers of events go with it;
        webhooks that it made go on, but are told no QR codes any more.

        `note`: as in `create`. Raises UnknownKey.
        """
        ...

    async def check(self, text: str) -> ApiKey:
        """Whose key that is. Remembers that it was used.

        Raises:
            Denied: it is no key, or was revoked; the message does not tell which.
        """
        ...

    async def run(self) -> None:
        """Stores when keys were last used, now and then, until cancelled; then once more."""
        ...


class AuditRecords(Protocol):
    """The audit trail's lines, as far as they are stored; `store.audit_trail` gathers them."""

    async def append(self, lines: Sequence[AuditRecord]) -> None:
        """Stores lines, and deletes those beyond the bounds now and then: MAX_AGE_MS and MAX_LINES
        in `store.audit_trail`."""
        ...

    async def read(
        self, *, after: int | None, limit: int, company: str | None
    ) -> list[dict[str, Any]]:
        """Lines with their ids, in order: those behind `after`; without it, the newest."""
        ...


class OpenAlerts(Protocol):
    """Alerts that were raised and not cleared, kept together with the events that raised them."""

    async def all(self) -> dict[AlertKey, AlertFinding]:
        """The open alerts. Those of rules that this version does not know are left out."""
        ...

    async def record(self, changes: Sequence[AlertChange]) -> None:
        """Logs `changes` in order, and what is open then, in one transaction.

        What was found of a company that was removed before it could be recorded is left out.
        """
        ...


# --- webhooks -------------------------------------------------------------------------------------


class WebhookStore(Protocol):
    """Webhooks: who wants to be told of which events, how far each is, and what it refused.

    The cursor of a webhook is the named consumer `webhook:ID`. Pausing and resuming are logged as
    `alert`, in one transaction with the state. Methods that name a webhook raise UnknownWebhook.
    """

    def changed(self) -> trio.Event:
        """Set when a configuration changes, or somebody asks to send a dead letter again."""
        ...

    def look_again(self) -> None:
        """Sets `changed`: something else changed what webhooks are told."""
        ...

    async def all(self) -> list[StoredWebhook]:
        """Every webhook, the oldest first."""
        ...

    async def get(self, identity: str) -> StoredWebhook: ...

    async def waiting_since(self) -> dict[str, int]:
        """When the oldest event that each webhook has still to deliver or to skip was logged,
        in epoch milliseconds; those that are disabled, or have none, are left out."""
        ...

    async def create(
        self,
        wanted: WebhookConfig,
        after: int | None,
        owner: str | None = None,
        note: AuditNote | None = None,
    ) -> StoredWebhook:
        """A new webhook, which begins behind the event `after`; None: with what comes.

        Args:
            owner: whose it is, such as `key:ID`; None: root's or the daemon's own user's.
            note: the audit trail's line, stored in the same transaction.

        Raises:
            InvalidParams: there are too many (WEBHOOKS in `rules.bounds`), or `after` is beyond the
                log.
        """
        ...

    async def update(
        self,
        identity: str,
        change: Callable[[WebhookConfig], WebhookConfig],
        *,
        rotate_secret: bool = False,
        note: AuditNote | None = None,
    ) -> StoredWebhook:
        """Configures it anew. The receiver gets another chance: what it was paused for is over.

        Args:
            change: from what is configured to what shall be; what it raises is raised here. It may
                run in any thread, and more than once.
            note: as in `create`.
        """
        ...

    async def disable(self, identity: str, revision: int, reason: str) -> None:
        """Disables a webhook whose receiver wants no more events; it keeps its place in the log.

        Somebody who changed the configuration since `revision` knows better: then nothing is done.
        """
        ...

    async def remove(self, identity: str, note: AuditNote | None = None) -> None:
        """Removes a webhook, its cursor and its dead letters; `note`: as in `create`."""
        ...

    async def progress(self, report: WebhookProgress) -> int:
        """Takes what the deliverer reports, all or nothing; returns the cursor.

        Raises:
            QueueFull: there is no room for more dead letters; nothing was taken.
            InvalidParams: the cursor is beyond the log.
        """
        ...

    async def dead_letters(
        self, identity: str, *, after: int = 0, limit: int = 100
    ) -> list[StoredDeadLetter]:
        """Those with ids above `after`, the oldest first."""
        ...

    async def resend(self, identity: str, letters: Collection[int] | None) -> int:
        """Asks for one more attempt of those letters, None: all; returns how many.

        Raises:
            UnknownDeadLetter: one is not there; nothing was asked for.
        """
        ...

    async def discard(self, identity: str, letters: Collection[int] | None) -> int:
        """Deletes those letters, None: all; returns how many. Raises as `resend` does."""
        ...

    async def with_resends(self) -> list[str]:
        """The webhooks that have letters to send again."""
        ...

    async def due_resend(self, identity: str) -> tuple[int, dict[str, Any]] | None:
        """The next letter that somebody asked to send again, with its event; None: no more."""
        ...

    async def resent(self, identity: str, letter: int, refusal: str | None) -> None:
        """What became of the one more attempt; None: the receiver took it."""
        ...

    async def count_by_owner(self) -> dict[str, int]:
        """How many webhooks each owner has, as `Consumers.count_by_owner` names them."""
        ...

    async def count_dead_letters(self) -> dict[str, tuple[int, int]]:
        """How many dead letters each webhook has, and bytes of them; those without are left out."""
        ...


# --- the whole ------------------------------------------------------------------------------------


class StoreHealth(Protocol):
    """How the store fares."""

    @property
    def trouble(self) -> str | None:
        """Why the last write was refused, in words; None once writes are taken again."""
        ...

    @property
    def size(self) -> int:
        """Bytes on disk."""
        ...

    async def probe(self) -> None:
        """Writes something that changes nothing, so that `trouble` tells how the disk is now.

        Raises:
            StoreFailed: it takes no writes.
        """
        ...

    async def answer(self) -> None:
        """Returns as soon as the store has got to what is asked of it now, and writes nothing.

        Raises:
            StoreFailed: it cannot take anything.
        """
        ...


class TakenBackup(Protocol):
    """A backup that was taken: `chunks` are its bytes."""

    @property
    def bytes(self) -> int:
        """How many `chunks` has given so far."""
        ...

    @property
    def sha256(self) -> str:
        """Of what `chunks` has given so far; hex."""
        ...

    @property
    def companies(self) -> list[str]:
        """The companies whose accounts are in it."""
        ...

    @property
    def left_out(self) -> Mapping[str, str]:
        """The companies whose accounts are not in it, and why."""
        ...

    def chunks(self) -> AsyncIterator[builtins.bytes]:
        """All of it, in order; once."""
        ...


class BackupMaker(Protocol):
    """Makes consistent backups while everything goes on."""

    def taken(self, *, with_accounts: bool) -> AbstractAsyncContextManager[TakenBackup]:
        """A backup of this moment. Its copies are gone when the block ends, however it ends.

        Raises:
            StoreFailed: there is no room for the copies, or the store cannot be read.
        """
        ...


class DaemonStore(NamedTuple):
    """All of it, as it is opened at the daemon's start."""

    health: StoreHealth
    events: EventLog
    consumers: Consumers
    outbox: Outbox
    inbound: Inbound
    companies: Companies
    acquaintances: Acquaintances
    keys: KeyRing
    audit: AuditRecords
    alerts: OpenAlerts
    webhooks: WebhookStore
    removals: Removals
