"""What must survive, as contracts: what the daemon's other rooms know of the store.

Each protocol is used by somebody else, and each operation is atomic and durable: it happened as a
whole when it returns, and not at all if it raised. A caller who is cancelled while it waits for the
disk may find it done. `store.sqlite` implements all of it, and so does `store.memory` for tests;
`tests/unit/store` has the suite that both pass.

Any operation that writes may raise StoreFailed: then nothing of it was kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from typing import Any, NamedTuple, Protocol

from whatsappd.model.message import NewMessage, OutboxState, Row

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
