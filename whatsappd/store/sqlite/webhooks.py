"""The webhooks' rows: what is configured, how far each is, and its dead letters.

Delivering is the gateway's business (`gateway.webhooks`); all that must survive is here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any

import trio

from whatsappd.errors import InvalidParams, unknown_webhook
from whatsappd.model.audit import AuditNote
from whatsappd.model.event import Draft
from whatsappd.model.webhook import StoredDeadLetter, StoredWebhook, WebhookConfig, WebhookProgress
from whatsappd.rules.bounds import (
    DEAD_LETTER_BYTES,
    DEAD_LETTERS,
    Bound,
    Holder,
    check_room,
)
from whatsappd.rules.webhook_alerts import WebhookAlert, gone_detail, pause_alert, webhook_alert
from whatsappd.rules.webhook_policy import without_codes
from whatsappd.store.sqlite import consumers, dead_letters
from whatsappd.store.sqlite.audit import insert_note
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_log import SqliteEventLog
from whatsappd.store.webhook_rows import (
    MAX_REASON,
    check_webhooks,
    consumer_name,
    new_id,
    new_secret,
)

_COLUMNS = (
    "id, revision, url, companies, types, description, allow_private, enabled, secret, created_ms,"
    " updated_ms, delivered, failures, last_success_ms, failing_since_ms, paused_since_ms,"
    " last_error, gone, owner"
)


class SqliteWebhooks:
    """A refused event is a dead letter before the cursor passes it."""

    def __init__(self, database: Database, log: SqliteEventLog, clock: Callable[[], int]) -> None:
        self._database = database
        self._log = log
        self._clock = clock
        self._changed = trio.Event()
        self.letters_bound: Bound = DEAD_LETTERS
        self.letter_bytes_bound: Bound = DEAD_LETTER_BYTES

    def changed(self) -> trio.Event:
        return self._changed

    def look_again(self) -> None:
        """Somebody else changed the table."""
        self._tell(None)

    def _tell(self, _committed: object) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- configuration ------------------------------------------------------------------------

    async def all(self) -> list[StoredWebhook]:
        return await self._database.read(_all)

    async def get(self, identity: str) -> StoredWebhook:
        return await self._database.read(lambda conn: _get(conn, identity))

    async def waiting_since(self) -> dict[str, int]:
        return await self._database.read(_waiting_since)

    async def create(
        self,
        wanted: WebhookConfig,
        after: int | None,
        owner: str | None = None,
        note: AuditNote | None = None,
    ) -> StoredWebhook:
        last = self._log.last_seq
        if after is not None and after > last:
            raise InvalidParams(f"after: the log ends at {last}", field="after", last=last)
        start = last if after is None else after
        identity, secret, now = new_id(), new_secret(), self._clock()

        def write(conn: sqlite3.Connection) -> StoredWebhook:
            _check_room(conn, owner)
            conn.execute(
                "INSERT INTO webhooks (id, revision, url, companies, types, description,"
                " allow_private, enabled, secret, created_ms, updated_ms, owner)"
                " VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (identity, *_row(wanted), secret, now, now, owner),
            )
            consumers.find_or_create(conn, consumer_name(identity), start, now)
            insert_note(conn, note, identity)
            return _get(conn, identity)

        return await self._database.write(write, self._tell)

    async def update(
        self,
        identity: str,
        change: Callable[[WebhookConfig], WebhookConfig],
        *,
        rotate_secret: bool = False,
        note: AuditNote | None = None,
    ) -> StoredWebhook:
        now, secret = self._clock(), new_secret()

        def write(conn: sqlite3.Connection) -> StoredWebhook:
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
            self._stage(pause_alert(found, None, "its configuration was changed"))
            insert_note(conn, note, identity)
            return _get(conn, identity)

        return await self._database.write(write, self._tell)

    async def disable(self, identity: str, revision: int, reason: str) -> None:
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
            self._stage(
                pause_alert(found, None, "it was disabled"),
                webhook_alert(found, WebhookAlert.DISABLED, "raised", now, reason[:MAX_REASON]),
            )

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

    async def remove(self, identity: str, note: AuditNote | None = None) -> None:

        def write(conn: sqlite3.Connection) -> None:
            found = _get(conn, identity)
            dead_letters.delete(conn, identity, None)
            conn.execute("DELETE FROM webhooks WHERE id = ?", (identity,))
            conn.execute("DELETE FROM consumers WHERE name = ?", (consumer_name(identity),))
            self._stage(pause_alert(found, None, "it was removed"))
            insert_note(conn, note, identity)

        await self._database.write(write, self._tell)

    # --- delivery -----------------------------------------------------------------------------

    async def progress(self, report: WebhookProgress) -> int:
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
                self._stage(pause_alert(found, report.paused_since_ms, detail))
            if report.gone is not None:
                after, first = report.gone
                detail = gone_detail(after, first)
                conn.execute(
                    "UPDATE webhooks SET gone = gone + ? WHERE id = ?",
                    (first - after - 1, report.id),
                )
                self._stage(webhook_alert(found, WebhookAlert.EVENTS_GONE, "raised", now, detail))
            name = consumer_name(report.id)
            return consumers.acknowledge(conn, name, report.cursor, now)

        return await self._database.write(write)

    def _check_letters(self, conn: sqlite3.Connection, before: StoredWebhook) -> None:
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

    def _stage(self, *drafts: Draft | None) -> None:
        self._log.stage([draft for draft in drafts if draft is not None])

    # --- dead letters -------------------------------------------------------------------------

    async def dead_letters(
        self, identity: str, *, after: int = 0, limit: int = 100
    ) -> list[StoredDeadLetter]:

        def read(conn: sqlite3.Connection) -> list[StoredDeadLetter]:
            _get(conn, identity)
            return dead_letters.list_some(conn, identity, after, limit)

        return await self._database.query(read)

    async def resend(self, identity: str, letters: Collection[int] | None) -> int:

        def write(conn: sqlite3.Connection) -> int:
            _get(conn, identity)
            return dead_letters.mark(conn, identity, letters)

        return await self._database.write(write, self._tell)

    async def discard(self, identity: str, letters: Collection[int] | None) -> int:

        def write(conn: sqlite3.Connection) -> int:
            _get(conn, identity)
            return dead_letters.delete(conn, identity, letters)

        return await self._database.write(write)

    async def due_resend(self, identity: str) -> tuple[int, dict[str, Any]] | None:
        return await self._database.read(lambda conn: dead_letters.due(conn, identity))

    async def with_resends(self) -> list[str]:
        return await self._database.read(dead_letters.with_due)

    async def resent(self, identity: str, letter: int, refusal: str | None) -> None:

        def write(conn: sqlite3.Connection) -> None:
            if refusal is not None:
                dead_letters.refuse_again(conn, identity, letter, refusal)
            elif dead_letters.deliver(conn, identity, letter):
                conn.execute(
                    "UPDATE webhooks SET delivered = delivered + 1 WHERE id = ?", (identity,)
                )

        await self._database.write(write)

    async def count_by_owner(self) -> dict[str, int]:
        sql = "SELECT coalesce(owner, 'uid:0'), count(*) FROM webhooks GROUP BY owner"
        return await self._database.read(lambda conn: dict(conn.execute(sql).fetchall()))

    async def count_dead_letters(self) -> dict[str, tuple[int, int]]:
        return {
            each.id: (each.dead_letters, each.dead_bytes)
            for each in await self.all()
            if each.dead_letters
        }


def end_owner(conn: sqlite3.Connection, owner: str) -> None:
    """The key that made these webhooks was revoked: they go on, without QR codes."""
    for found in _all(conn, "WHERE owner = ?", [owner]):
        wanted = without_codes(found.wanted)
        if wanted != found.wanted:
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


def _check_room(conn: sqlite3.Connection, owner: str | None) -> None:
    held, total = conn.execute(
        "SELECT coalesce(sum(owner IS ?), 0), count(*) FROM webhooks", (owner,)
    ).fetchone()
    check_webhooks(owner, held, total)


def _all(
    conn: sqlite3.Connection, where: str = "", values: Sequence[str] = ()
) -> list[StoredWebhook]:
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


def _get(conn: sqlite3.Connection, identity: str) -> StoredWebhook:
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
) -> StoredWebhook:
    wanted = WebhookConfig(
        url, _names(companies), _names(types), description, bool(allow_private), bool(enabled)
    )
    return StoredWebhook(identity, revision, wanted, *rest)


def _row(wanted: WebhookConfig) -> tuple[Any, ...]:
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
