"""Webhooks: who wants to be told of which events, how far each is, and what it refused.

Delivering is the gateway's business (`gateway.webhooks`); all that must survive is here. The cursor
of a webhook is the named consumer `webhook:ID`; an event that was refused is a dead letter before
the cursor passes it. Pausing and resuming are logged as `alert`, in one transaction with the state.
"""

from __future__ import annotations

import base64
import json
import secrets
import sqlite3
import string
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import trio

from whatsappd.clock import now_ms
from whatsappd.errors import InvalidParams, unknown_webhook
from whatsappd.model.consumer import WEBHOOK
from whatsappd.model.event import ALERT, SESSION_QR, Draft
from whatsappd.rules.bounds import (
    DEAD_LETTER_BYTES,
    DEAD_LETTERS,
    WEBHOOKS,
    Bound,
    Holder,
    check_room,
)
from whatsappd.rules.webhook_policy import WebhookAlert, host_of
from whatsappd.store.sqlite import consumers, dead_letters
from whatsappd.store.sqlite.audit import Note, unnoted
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.dead_letters import MAX_REASON, DeadLetter, Refused
from whatsappd.store.sqlite.events import MAX_EVENT_BYTES, EventLog

#: Each is a receiver that somebody runs, and some connections and memory of the gateway.
MAX_WEBHOOKS = WEBHOOKS.all
#: Secrets begin with it (Standard Webhooks); behind it 32 random bytes in base64.
SECRET_PREFIX = "whsec_"  # noqa: S105 - a secret's mark, not one

_ALPHABET = string.ascii_lowercase + string.digits
_COLUMNS = (
    "id, revision, url, companies, types, description, allow_private, enabled, secret, created_ms,"
    " updated_ms, delivered, failures, last_success_ms, failing_since_ms, paused_since_ms,"
    " last_error, gone, owner"
)


class Wanted(NamedTuple):
    """What somebody configured. `companies` and `types` None: all."""

    url: str
    companies: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    description: str = ""
    allow_private: bool = False
    enabled: bool = True


class Webhook(NamedTuple):
    """A webhook and how it fares. Times are epoch milliseconds."""

    id: str
    revision: int
    wanted: Wanted
    secret: str
    created_ms: int
    updated_ms: int
    delivered: int
    failures: int  # attempts that failed
    last_success_ms: int | None
    failing_since_ms: int | None  # the first failure since the last success
    paused_since_ms: int | None
    last_error: str | None
    gone: int  # events that retention deleted before it came to them, of all kinds; at the most
    owner: str | None  # who made it: `uid:1000`, `key:ID`; None: root or the daemon's own user
    cursor: int  # the seq up to which everything is delivered, or a dead letter
    dead_letters: int
    dead_bytes: int  # of the events in them, packed

    @property
    def is_full(self) -> bool:
        """Whether there may be no room for one more dead letter, so that it waits."""
        return (
            self.dead_letters >= DEAD_LETTERS.each
            or self.dead_bytes + MAX_EVENT_BYTES > DEAD_LETTER_BYTES.each
        )

    def is_for(self, companies: Collection[str]) -> bool:
        """Whether it is about none but these companies: then whoever may see those may see it."""
        own = self.wanted.companies
        return own is not None and set(own) <= set(companies)

    @property
    def state(self) -> str:
        if not self.wanted.enabled:
            return "disabled"
        if self.paused_since_ms is not None:
            return "paused"
        return "ok" if self.failing_since_ms is None else "failing"


class Progress(NamedTuple):
    """What the deliverer tells of one webhook. Counts are since it last told.

    `revision`: of the configuration it worked by; what it thinks of the receiver
    (`failing_since_ms` and so on) is ignored if somebody changed that meanwhile. `gone`: events
    between these two were deleted by the log's retention before they could be delivered.
    """

    id: str
    revision: int
    cursor: int
    delivered: int
    failures: int
    last_success_ms: int | None
    failing_since_ms: int | None
    paused_since_ms: int | None
    last_error: str | None
    dead: Sequence[Refused]
    gone: tuple[int, int] | None = None


class Webhooks:
    """All webhooks of one database."""

    def __init__(
        self, database: Database, log: EventLog, *, clock: Callable[[], int] = now_ms
    ) -> None:
        self._database = database
        self._log = log
        self._clock = clock
        self._changed = trio.Event()
        self.letters_bound: Bound = DEAD_LETTERS
        self.letter_bytes_bound: Bound = DEAD_LETTER_BYTES

    def changed(self) -> trio.Event:
        """Set when a configuration changes, or somebody asks to send a dead letter again."""
        return self._changed

    def look_again(self) -> None:
        """Somebody else changed the table."""
        self._tell(None)

    def _tell(self, _committed: object) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- configuration ------------------------------------------------------------------------

    async def all(self) -> list[Webhook]:
        """Every webhook, the oldest first."""
        return await self._database.read(_all)

    async def get(self, identity: str) -> Webhook:
        """Raises UnknownWebhook."""
        return await self._database.read(lambda conn: _get(conn, identity))

    async def waiting_since(self) -> dict[str, int]:
        """When the oldest event that each webhook has still to deliver or to skip was logged,
        in epoch milliseconds; those that are disabled, or have none, are left out."""
        return await self._database.read(_waiting_since)

    async def create(
        self, wanted: Wanted, after: int | None, owner: str | None = None, note: Note = unnoted
    ) -> Webhook:
        """A new webhook, which begins behind the event `after`; None: with what comes.

        Args:
            owner: whose it is, such as `key:ID`; None: root's or the daemon's own user's.
            note: writes the audit trail's line in the same transaction.

        Raises:
            InvalidParams: there are too many, or `after` is beyond the log.
        """
        last = self._log.last_seq
        if after is not None and after > last:
            raise InvalidParams(f"after: the log ends at {last}", field="after", last=last)
        start = last if after is None else after
        identity = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        secret, now = new_secret(), self._clock()

        def write(conn: sqlite3.Connection) -> Webhook:
            _check_room(conn, owner)
            conn.execute(
                "INSERT INTO webhooks (id, revision, url, companies, types, description,"
                " allow_private, enabled, secret, created_ms, updated_ms, owner)"
                " VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (identity, *_row(wanted), secret, now, now, owner),
            )
            consumers.find_or_create(conn, consumer_name(identity), start, now)
            note(conn, identity)
            return _get(conn, identity)

        return await self._database.write(write, self._tell)

    async def update(
        self,
        identity: str,
        change: Callable[[Wanted], Wanted],
        *,
        rotate_secret: bool = False,
        note: Note = unnoted,
    ) -> Webhook:
        """Configure anew. The receiver gets another chance: whatever it was paused for is over.

        Args:
            note: as in `create`.
            change: from what is configured to what shall be; what it raises is raised here.

        Raises:
            UnknownWebhook: there is none.
        """
        now, secret = self._clock(), new_secret()

        def write(conn: sqlite3.Connection) -> Webhook:
            found = _get(conn, identity)
            conn.execute(
                "UPDATE webhooks SET revision = revision + 1, url = ?, companies = ?, types = ?,"
                " description = ?, allow_private = ?, enabled = ?, secret = ?, updated_ms = ?,"
                " failing_since_ms = NULL, paused_since_ms = NULL WHERE id = ?",
                (
                    *_row(change(found.wanted)),
                    secret if rotate_secret else found.secret,
                    now,
                    identity,
                ),
            )
            self._stage_alert(found, None, "its configuration was changed")
            note(conn, identity)
            return _get(conn, identity)

        return await self._database.write(write, self._tell)

    async def disable(self, identity: str, revision: int, reason: str) -> None:
        """Disable a webhook whose receiver wants no more events; it keeps its place in the log.

        Somebody who changed the configuration since `revision` knows better: then nothing is done.

        Raises:
            UnknownWebhook: somebody removed it meanwhile.
        """
        now = self._clock()

        def write(conn: sqlite3.Connection) -> None:
            found = _get(conn, identity)
            if found.revision != revision or not found.wanted.enabled:
                return
            conn.execute(
                "UPDATE webhooks SET revision = revision + 1, enabled = 0, updated_ms = ?,"
                " failing_since_ms = NULL, paused_since_ms = NULL, last_error = ? WHERE id = ?",
                (now, reason[:MAX_REASON], identity),
            )
            self._stage_alert(found, None, "it was disabled")
            self._alert(found, WebhookAlert.DISABLED, "raised", now, reason[:MAX_REASON])

        await self._database.write(write, self._tell)

    async def read_anew(self, seq: int) -> None:
        """Events up to `seq` were erased: deliveries of all companies' events that have not got
        there yet begin anew at their cursors, and find them gone. What they delivered beyond their
        cursor comes twice."""

        def write(conn: sqlite3.Connection) -> None:
            conn.execute(
                "UPDATE webhooks SET revision = revision + 1 WHERE companies IS NULL AND"
                " (SELECT cursor FROM consumers WHERE name = 'webhook:' || webhooks.id) < ?",
                (seq,),
            )

        await self._database.write(write, self._tell)

    async def remove(self, identity: str, note: Note = unnoted) -> None:
        """Remove a webhook, its cursor and its dead letters; `note`: as in `create`.

        Raises UnknownWebhook.
        """

        def write(conn: sqlite3.Connection) -> None:
            found = _get(conn, identity)
            dead_letters.delete(conn, identity, None)
            conn.execute("DELETE FROM webhooks WHERE id = ?", (identity,))
            conn.execute("DELETE FROM consumers WHERE name = ?", (consumer_name(identity),))
            self._stage_alert(found, None, "it was removed")
            note(conn, identity)

        await self._database.write(write, self._tell)

    # --- delivery -----------------------------------------------------------------------------

    async def progress(self, report: Progress) -> int:
        """Take what the deliverer reports, all or nothing; returns the cursor.

        Raises:
            UnknownWebhook: somebody removed it meanwhile.
            QueueFull: there is no room for more dead letters; nothing was taken.
        """
        if report.cursor > self._log.last_seq:
            raise InvalidParams(
                f"cursor: there is no event {report.cursor}",
                field="cursor",
                last=self._log.last_seq,
            )
        now = self._clock()

        def write(conn: sqlite3.Connection) -> int:
            found = _get(conn, report.id)
            if report.dead:
                dead_letters.insert(conn, report.id, report.dead, now)
                self._check_letters(conn, found)
            conn.execute(
                "UPDATE webhooks SET delivered = delivered + ?, failures = failures + ?,"
                " last_success_ms = coalesce(?, last_success_ms) WHERE id = ?",
                (report.delivered, report.failures, report.last_success_ms, report.id),
            )
            if report.revision == found.revision:
                error = report.last_error and report.last_error[:MAX_REASON]
                detail = error if report.paused_since_ms else "it takes events again"
                conn.execute(
                    "UPDATE webhooks SET failing_since_ms = ?, paused_since_ms = ?,"
                    " last_error = coalesce(?, last_error) WHERE id = ?",
                    (report.failing_since_ms, report.paused_since_ms, error, report.id),
                )
                self._stage_alert(found, report.paused_since_ms, detail)
            if report.gone is not None:
                after, first = report.gone
                detail = f"events between {after} and {first} were deleted by the log's retention"
                conn.execute(
                    "UPDATE webhooks SET gone = gone + ? WHERE id = ?",
                    (first - after - 1, report.id),
                )
                self._alert(found, WebhookAlert.EVENTS_GONE, "raised", now, detail)
            name = consumer_name(report.id)
            return consumers.acknowledge(conn, name, report.cursor, now)

        return await self._database.write(write)

    def _check_letters(self, conn: sqlite3.Connection, before: Webhook) -> None:
        """Raises QueueFull if there was no room for the dead letters that came just now."""
        after = _get(conn, before.id)
        total_bytes, total = conn.execute(
            "SELECT sum(dead_bytes), (SELECT count(*) FROM webhook_dead_letters) FROM webhooks"
        ).fetchone()
        holder = Holder(f"webhook:{before.id}", may_use_kept=before.owner is None)
        for bound, held, now, total_now in (
            (self.letters_bound, before.dead_letters, after.dead_letters, total),
            (self.letter_bytes_bound, before.dead_bytes, after.dead_bytes, total_bytes),
        ):
            if now > held:
                check_room(bound, holder, held, total_now - (now - held), now - held)

    def _stage_alert(self, was: Webhook, paused_since_ms: int | None, detail: str | None) -> None:
        if (was.paused_since_ms is None) == (paused_since_ms is None):
            return
        state = "cleared" if paused_since_ms is None else "raised"
        since_ms = paused_since_ms or was.paused_since_ms
        self._alert(was, WebhookAlert.FAILING, state, since_ms, detail)

    def _alert(
        self,
        webhook: Webhook,
        rule: WebhookAlert,
        state: str,
        since_ms: int | None,
        detail: str | None,
    ) -> None:
        """Stage the event; its company is the webhook's, if that is for one only."""
        companies = webhook.wanted.companies
        company = companies[0] if companies is not None and len(companies) == 1 else None
        # Not the URL: its path may be the receiver's secret, and alerts go to many places.
        host = host_of(webhook.wanted.url)
        data = {
            "rule": str(rule),
            "state": state,
            "company": company,
            "since_ms": since_ms,
            "detail": f"webhook {webhook.id} to {host}: {detail}",
            "webhook": webhook.id,
        }
        self._log.stage([Draft(company or "", ALERT, data)])

    # --- dead letters -------------------------------------------------------------------------

    async def dead_letters(
        self, identity: str, *, after: int = 0, limit: int = 100
    ) -> list[DeadLetter]:
        """Those with ids above `after`, the oldest first. Raises UnknownWebhook."""

        def read(conn: sqlite3.Connection) -> list[DeadLetter]:
            _get(conn, identity)
            return dead_letters.list_some(conn, identity, after, limit)

        return await self._database.query(read)

    async def resend(self, identity: str, letters: Collection[int] | None) -> int:
        """Ask for one more attempt of those letters, None: all; returns how many.

        Raises:
            UnknownWebhook, UnknownDeadLetter: one is not there; nothing was asked for.
        """

        def write(conn: sqlite3.Connection) -> int:
            _get(conn, identity)
            return dead_letters.mark(conn, identity, letters)

        return await self._database.write(write, self._tell)

    async def discard(self, identity: str, letters: Collection[int] | None) -> int:
        """Delete those letters, None: all; returns how many. Raises as `resend` does."""

        def write(conn: sqlite3.Connection) -> int:
            _get(conn, identity)
            return dead_letters.delete(conn, identity, letters)

        return await self._database.write(write)

    async def due_resend(self, identity: str) -> tuple[int, dict[str, Any]] | None:
        """The next letter that somebody asked to send again, with its event; None: no more."""
        return await self._database.read(lambda conn: dead_letters.due(conn, identity))

    async def with_resends(self) -> list[str]:
        """The webhooks that have letters to send again."""
        return await self._database.read(dead_letters.with_due)

    async def resent(self, identity: str, letter: int, refusal: str | None) -> None:
        """What became of the one more attempt; None: the receiver took it."""

        def write(conn: sqlite3.Connection) -> None:
            if refusal is not None:
                dead_letters.refuse_again(conn, identity, letter, refusal)
            elif dead_letters.deliver(conn, identity, letter):
                conn.execute(
                    "UPDATE webhooks SET delivered = delivered + 1 WHERE id = ?", (identity,)
                )

        await self._database.write(write)


def end_owner(conn: sqlite3.Connection, owner: str) -> None:
    """The key that made these webhooks was revoked: they go on, but they are told no QR codes any
    more, which only those may see who may link."""
    for found in _all(conn, "WHERE owner = ?", [owner]):
        types = found.wanted.types
        if types is None or SESSION_QR not in types:
            continue
        left = tuple(each for each in types if each != SESSION_QR)
        wanted = found.wanted._replace(
            types=left or types, enabled=found.wanted.enabled and bool(left)
        )
        conn.execute(
            "UPDATE webhooks SET revision = revision + 1, types = ?, enabled = ? WHERE id = ?",
            (json.dumps(wanted.types), int(wanted.enabled), found.id),
        )


def stop_only_for(conn: sqlite3.Connection, company: str) -> None:
    """Nobody is told any more by the webhooks that are for that company and for no other."""
    conn.execute(
        "UPDATE webhooks SET revision = revision + 1, enabled = 0 WHERE companies = ?",
        (json.dumps((company,)),),
    )


def letters_by_webhook(conn: sqlite3.Connection) -> dict[Bound, dict[str, int]]:
    """How many dead letters there are, and bytes of them, of each webhook that has some."""
    found = [each for each in _all(conn) if each.dead_letters]
    return {
        DEAD_LETTERS: {f"webhook:{each.id}": each.dead_letters for each in found},
        DEAD_LETTER_BYTES: {f"webhook:{each.id}": each.dead_bytes for each in found},
    }


def _check_room(conn: sqlite3.Connection, owner: str | None) -> None:
    is_ours = owner is None
    holder = Holder(owner or "uid:0", is_capped=not is_ours, may_use_kept=is_ours)
    held, total = conn.execute(
        "SELECT coalesce(sum(owner IS ?), 0), count(*) FROM webhooks", (owner,)
    ).fetchone()
    check_room(WEBHOOKS, holder, held, total)


def consumer_name(identity: str) -> str:
    return WEBHOOK + identity


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def _all(conn: sqlite3.Connection, where: str = "", values: Sequence[str] = ()) -> list[Webhook]:
    rows = conn.execute(
        f"SELECT {_COLUMNS}, cursor, (SELECT count(*) FROM webhook_dead_letters AS letters"  # noqa: S608 - ours
        "  WHERE letters.webhook = webhooks.id), dead_bytes"
        " FROM webhooks JOIN (SELECT name, cursor FROM consumers) ON name = 'webhook:' || id"
        f" {where} ORDER BY created_ms, id",
        values,
    )
    return [_webhook(*row) for row in rows]


def _waiting_since(conn: sqlite3.Connection) -> dict[str, int]:
    return dict(
        conn.execute(
            "SELECT id, (SELECT time_ms FROM events WHERE seq > cursor ORDER BY seq LIMIT 1)"
            "  AS since_ms FROM webhooks JOIN consumers ON name = 'webhook:' || id"
            " WHERE enabled = 1 AND since_ms IS NOT NULL"
        )
    )


def _get(conn: sqlite3.Connection, identity: str) -> Webhook:
    found = _all(conn, "WHERE id = ?", [identity])
    if not found:
        raise unknown_webhook(identity)
    return found[0]


def _webhook(
    identity: str,
    revision: int,
    url: str,
    companies: str | None,
    types: str | None,
    description: str,
    allow_private: int,
    enabled: int,
    *rest: Any,
) -> Webhook:
    wanted = Wanted(
        url, _names(companies), _names(types), description, bool(allow_private), bool(enabled)
    )
    return Webhook(identity, revision, wanted, *rest)


def _row(wanted: Wanted) -> tuple[Any, ...]:
    lists = [
        None if each is None else json.dumps(each) for each in (wanted.companies, wanted.types)
    ]
    return (
        wanted.url,
        *lists,
        wanted.description,
        int(wanted.allow_private),
        int(wanted.enabled),
    )


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(json.loads(text))
