"""The memory twin's webhooks: what is configured, how far each is, and its dead letters."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import trio

from whatsappd.errors import unknown_webhook
from whatsappd.model.audit import AuditNote
from whatsappd.model.consumer import Consumer
from whatsappd.model.event import Draft
from whatsappd.model.webhook import (
    NewDeadLetter,
    StoredDeadLetter,
    StoredWebhook,
    WebhookConfig,
    WebhookProgress,
)
from whatsappd.rules.bounds import DEAD_LETTER_BYTES, DEAD_LETTERS, Bound, Holder, check_room
from whatsappd.rules.webhook_alerts import WebhookAlert, gone_detail, pause_alert, webhook_alert
from whatsappd.store.memory.event_log import MemoryEventLog
from whatsappd.store.memory.tables import KeptLetter, MemoryTables
from whatsappd.store.webhook_rows import (
    MAX_REASON,
    check_webhooks,
    consumer_name,
    new_id,
    new_secret,
    unknown_letter,
)
from whatsappd.wire.frames import pack


class MemoryWebhooks:
    """See `store.port.WebhookStore`."""

    def __init__(self, tables: MemoryTables, log: MemoryEventLog) -> None:
        self._tables = tables
        self._log = log
        self._changed = trio.Event()
        self.letters_bound: Bound = DEAD_LETTERS
        self.letter_bytes_bound: Bound = DEAD_LETTER_BYTES

    def changed(self) -> trio.Event:
        return self._changed

    def look_again(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- configuration ------------------------------------------------------------------------

    async def all(self) -> list[StoredWebhook]:
        async with self._tables.reading("all"):
            return self._all()

    def _all(self) -> list[StoredWebhook]:
        return sorted(
            (self._get(identity) for identity in self._tables.webhooks),
            key=lambda each: (each.created_ms, each.id),
        )

    async def get(self, identity: str) -> StoredWebhook:
        async with self._tables.reading("get"):
            return self._get(identity)

    def _get(self, identity: str) -> StoredWebhook:
        known = self._tables.webhooks.get(identity)
        if known is None:
            raise unknown_webhook(identity)
        letters = self._letters(identity)
        return known._replace(
            cursor=self._tables.consumers[consumer_name(identity)].cursor,
            dead_letters=len(letters),
            dead_bytes=sum(each.size for each in letters),
        )

    def _put(self, webhook: StoredWebhook, **changes: Any) -> None:
        self._tables.webhooks[webhook.id] = webhook._replace(**changes)

    async def waiting_since(self) -> dict[str, int]:
        async with self._tables.reading("waiting_since"):
            found = {}
            for each in self._all():
                left = [seq for seq in self._tables.events if seq > each.cursor]
                if each.wanted.enabled and left:
                    found[each.id] = self._tables.event_times[min(left)]
            return found

    async def create(
        self,
        wanted: WebhookConfig,
        after: int | None,
        owner: str | None = None,
        note: AuditNote | None = None,
    ) -> StoredWebhook:
        start = self._log.last_seq if after is None else self._log.existing(after, "after")
        identity, now = new_id(), self._tables.clock()
        async with self._tables.writing("create"):
            known = self._tables.webhooks.values()
            check_webhooks(owner, sum(each.owner == owner for each in known), len(known))
            self._tables.webhooks[identity] = StoredWebhook(
                id=identity,
                revision=1,
                wanted=wanted,
                secret=new_secret(),
                created_ms=now,
                updated_ms=now,
                delivered=0,
                failures=0,
                last_success_ms=None,
                failing_since_ms=None,
                paused_since_ms=None,
                last_error=None,
                gone=0,
                owner=owner,
                cursor=start,
                dead_letters=0,
                dead_bytes=0,
            )
            name = consumer_name(identity)
            self._tables.consumers[name] = Consumer(name, start, now, now)
            self._tables.note_change(note, identity)
            made = self._get(identity)
        self.look_again()
        return made

    async def update(
        self,
        identity: str,
        change: Callable[[WebhookConfig], WebhookConfig],
        *,
        rotate_secret: bool = False,
        note: AuditNote | None = None,
    ) -> StoredWebhook:
        async with self._tables.writing("update"):
            found = self._get(identity)
            secret = new_secret() if rotate_secret else found.secret
            self._configure(found, change(found.wanted), secret)
            self._tables.note_change(note, identity)
            changed = self._get(identity)
        self.look_again()
        return changed

    def _configure(self, found: StoredWebhook, wanted: WebhookConfig, secret: str) -> None:
        self._put(
            found,
            revision=found.revision + 1,
            wanted=wanted,
            secret=secret,
            updated_ms=self._tables.clock(),
            failing_since_ms=None,
            paused_since_ms=None,
        )
        self._ring(pause_alert(found, None, "its configuration was changed"))

    async def disable(self, identity: str, revision: int, reason: str) -> None:
        now, reason = self._tables.clock(), reason[:MAX_REASON]
        async with self._tables.writing("disable"):
            found = self._get(identity)
            if found.revision == revision and found.wanted.enabled:
                self._put(
                    found,
                    revision=found.revision + 1,
                    wanted=found.wanted._replace(enabled=False),
                    updated_ms=now,
                    failing_since_ms=None,
                    paused_since_ms=None,
                    last_error=reason,
                )
                self._ring(
                    pause_alert(found, None, "it was disabled"),
                    webhook_alert(found, WebhookAlert.DISABLED, "raised", now, reason),
                )
        self.look_again()

    async def remove(self, identity: str, note: AuditNote | None = None) -> None:
        async with self._tables.writing("remove"):
            self._erase(identity)
            self._tables.note_change(note, identity)
        self.look_again()

    def _erase(self, identity: str) -> None:
        found = self._get(identity)
        self._delete(identity, None)
        del self._tables.webhooks[identity]
        del self._tables.consumers[consumer_name(identity)]
        self._ring(pause_alert(found, None, "it was removed"))

    # --- a company that is removed: in a transaction ------------------------------------------

    def stop_only_for(self, company: str) -> None:
        """Nobody is told any more by the webhooks that are for that company and for no other."""
        for each in self._all():
            if each.wanted.companies == (company,):
                wanted = each.wanted._replace(enabled=False)
                self._put(each, revision=each.revision + 1, wanted=wanted)

    def erase_company(self, company: str) -> None:
        """No webhook is for it any more, and none has a dead letter of it."""
        for kept in list(self._tables.letters.values()):
            if kept.letter.company == company:
                del self._tables.letters[kept.letter.id]
        for each in self._all():
            companies = each.wanted.companies
            if companies is None or company not in companies:
                continue
            left = tuple(name for name in companies if name != company)
            if left:
                self._configure(each, each.wanted._replace(companies=left), each.secret)
            else:
                self._erase(each.id)

    def read_anew(self, seq: int) -> None:
        """Events up to `seq` were erased: deliveries of all companies' events that have not got
        there yet begin anew at their cursors, and find them gone."""
        for each in self._all():
            if each.wanted.companies is None and each.cursor < seq:
                self._put(each, revision=each.revision + 1)

    # --- delivery -----------------------------------------------------------------------------

    async def progress(self, report: WebhookProgress) -> int:
        self._log.existing(report.cursor, "cursor")
        now = self._tables.clock()
        async with self._tables.writing("progress"):
            found = self._get(report.id)
            for dead in report.dead:
                self._bury(report.id, dead, now)
            self._check_letters(found)
            after = found._replace(
                delivered=found.delivered + report.delivered,
                failures=found.failures + report.failures,
                last_success_ms=report.last_success_ms or found.last_success_ms,
            )
            if report.revision == found.revision:
                error = report.last_error and report.last_error[:MAX_REASON]
                after = after._replace(
                    failing_since_ms=report.failing_since_ms,
                    paused_since_ms=report.paused_since_ms,
                    last_error=error or found.last_error,
                )
                detail = error if report.paused_since_ms else "it takes events again"
                self._ring(pause_alert(found, report.paused_since_ms, detail))
            if report.gone is not None:
                behind, first = report.gone
                after = after._replace(gone=found.gone + first - behind - 1)
                detail = gone_detail(behind, first)
                self._ring(webhook_alert(found, WebhookAlert.EVENTS_GONE, "raised", now, detail))
            self._put(after)
            name = consumer_name(report.id)
            place = self._tables.consumers[name]
            moved = place._replace(cursor=max(place.cursor, report.cursor), acked_ms=now)
            self._tables.consumers[name] = moved
            return moved.cursor

    def _bury(self, webhook: str, dead: NewDeadLetter, now: int) -> None:
        """Left out is what is there already, and events of companies that were removed."""
        event, tables = dead.event, self._tables
        seq, company = event["seq"], event["company"]
        is_kept = seq in tables.events or tables.forgotten.get(company, 0) >= seq
        if not is_kept or any(each.letter.seq == seq for each in self._letters(webhook)):
            return
        tables.last_letter += 1
        letter = StoredDeadLetter(
            *(tables.last_letter, webhook, seq, event["time_ms"], company, event["type"]),
            *(now, dead.attempts, dead.reason[:MAX_REASON], 0),
        )
        tables.letters[letter.id] = KeptLetter(letter, event, len(pack(event)))

    def _check_letters(self, before: StoredWebhook) -> None:
        """Raises QueueFull if there was no room for the dead letters that came just now."""
        after, every = self._get(before.id), self._tables.letters.values()
        holder = Holder(f"webhook:{before.id}", may_use_kept=before.owner is None)
        for bound, held, now, total in (
            (self.letters_bound, before.dead_letters, after.dead_letters, len(every)),
            (
                *(self.letter_bytes_bound, before.dead_bytes, after.dead_bytes),
                sum(each.size for each in every),
            ),
        ):
            if now > held:
                check_room(bound, holder, held, total - (now - held), now - held)

    def _ring(self, *drafts: Draft | None) -> None:
        self._tables.log(*(draft for draft in drafts if draft is not None))

    # --- dead letters -------------------------------------------------------------------------

    def _letters(self, webhook: str) -> list[KeptLetter]:
        return [each for each in self._tables.letters.values() if each.letter.webhook == webhook]

    async def dead_letters(
        self, identity: str, *, after: int = 0, limit: int = 100
    ) -> list[StoredDeadLetter]:
        async with self._tables.reading("dead_letters"):
            self._get(identity)
            found = [each.letter for each in self._letters(identity) if each.letter.id > after]
            return found[:limit]

    async def resend(self, identity: str, letters: Collection[int] | None) -> int:
        async with self._tables.writing("resend"):
            self._get(identity)
            chosen = self._choose(identity, letters)
            for each in chosen:
                self._tables.letters[each.letter.id] = each._replace(
                    letter=each.letter._replace(resend=1)
                )
        self.look_again()
        return len(chosen)

    async def discard(self, identity: str, letters: Collection[int] | None) -> int:
        async with self._tables.writing("discard"):
            self._get(identity)
            return self._delete(identity, letters)

    def _choose(self, webhook: str, letters: Collection[int] | None) -> list[KeptLetter]:
        """Raises UnknownDeadLetter."""
        kept = {each.letter.id: each for each in self._letters(webhook)}
        for letter in letters or ():
            if letter not in kept:
                raise unknown_letter(webhook, letter)
        return list(kept.values()) if letters is None else [kept[each] for each in letters]

    def _delete(self, webhook: str, letters: Collection[int] | None) -> int:
        chosen = self._choose(webhook, letters)
        for each in chosen:
            del self._tables.letters[each.letter.id]
        return len(chosen)

    async def with_resends(self) -> list[str]:
        async with self._tables.reading("with_resends"):
            due = (each.letter for each in self._tables.letters.values() if each.letter.resend)
            return sorted({letter.webhook for letter in due})

    async def due_resend(self, identity: str) -> tuple[int, dict[str, Any]] | None:
        async with self._tables.reading("due_resend"):
            due = (each for each in self._letters(identity) if each.letter.resend)
            first = next(due, None)
            return None if first is None else (first.letter.id, first.event)

    async def resent(self, identity: str, letter: int, refusal: str | None) -> None:
        async with self._tables.writing("resent"):
            kept = self._tables.letters.get(letter)
            if kept is None or kept.letter.webhook != identity:
                return
            if refusal is None:
                del self._tables.letters[letter]
                known = self._tables.webhooks[identity]
                self._put(known, delivered=known.delivered + 1)
                return
            again = kept.letter._replace(
                resend=0, attempts=kept.letter.attempts + 1, reason=refusal[:MAX_REASON]
            )
            self._tables.letters[letter] = kept._replace(letter=again)

    async def count_by_owner(self) -> dict[str, int]:
        async with self._tables.reading("count_by_owner"):
            counts: dict[str, int] = {}
            for each in self._tables.webhooks.values():
                owner = each.owner or "uid:0"
                counts[owner] = counts.get(owner, 0) + 1
            return counts

    async def count_dead_letters(self) -> dict[str, tuple[int, int]]:
        return {
            each.id: (each.dead_letters, each.dead_bytes)
            for each in await self.all()
            if each.dead_letters
        }
