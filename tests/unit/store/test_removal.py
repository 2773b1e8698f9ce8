"""A removed company leaves nothing: no row, no file, nothing that was for it alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Never

import pytest
import trio
import trio.testing

from whatsappd.errors import StoreFailed
from whatsappd.model.access import KeyScope
from whatsappd.model.arrival import Arrival, Receipt
from whatsappd.model.audit import AuditRecord
from whatsappd.model.content import Text
from whatsappd.model.event import ALERT, MESSAGE_RECEIVED, Draft
from whatsappd.model.message import NewMessage, OutboxState, Row
from whatsappd.model.stored_event import EventBounds
from whatsappd.model.webhook import NewDeadLetter, WebhookConfig, WebhookProgress
from whatsappd.rules.alerts import AlertChange, AlertKey, AlertRule
from whatsappd.store.company_directory import _delete_tree
from whatsappd.store.port import (
    Acquaintances,
    AuditRecords,
    Companies,
    EventLog,
    Inbound,
    KeyRing,
    OpenAlerts,
    Outbox,
    Removals,
    WebhookStore,
)
from whatsappd.store.sqlite import removal
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.integrity import check
from whatsappd.store.sqlite.keys import open_keys
from whatsappd.store.sqlite.store import store_in

SECRET = "an order of which nobody may know"
URL = "https://example.org/hook"


class Opened(NamedTuple):
    """The parts of a store, its database, and the directory that all is in."""

    database: Database
    root: Path
    outbox: Outbox
    companies: Companies
    acquaintances: Acquaintances
    keys: KeyRing
    webhooks: WebhookStore
    removals: Removals
    inbound: Inbound
    alerts: OpenAlerts
    log: EventLog
    audit: AuditRecords


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Opened]:
    async with open_database(root / "whatsappd.db") as database:
        made = await store_in(database, lambda company: root / "companies" / company)
        yield Opened(
            database,
            root,
            made.outbox,
            made.companies,
            made.acquaintances,
            made.keys,
            made.webhooks,
            made.removals,
            made.inbound,
            made.alerts,
            made.events,
            made.audit,
        )


def new(company: str, text: str, key: str) -> NewMessage:
    return NewMessage(company, "15550100@s.whatsapp.net", Text(text), key)


async def live(store: Opened, company: str) -> list[Row]:
    """Let a company leave its traces everywhere; its messages, one in each of some states."""
    await store.companies.put_wanted(company, True)
    rows = []
    for number in range(5):
        row, _ = await store.outbox.submissions.accept(new(company, SECRET, f"order-{number}"), 99)
        rows.append(row)
    await store.outbox.handovers.begin(rows[0].id)
    await store.outbox.handovers.acknowledge(rows[0].id, f"{company}0", 1)
    await store.outbox.handovers.begin(rows[1].id)
    await store.outbox.handovers.mark_uncertain(rows[1].id, "crash")
    await store.outbox.submissions.cancel(rows[2].id)
    await store.inbound.take(
        company,
        [
            Arrival(Draft(company, MESSAGE_RECEIVED, {"text": SECRET}), 7),
            Arrival(
                Draft(company, "message.receipt", {}), 8, Receipt(["unknown"], "read", 1),
                ["15550111@s.whatsapp.net"],
            ),
        ],
    )  # fmt: skip
    raised = AlertChange(AlertKey(AlertRule.SESSION_DOWN, company), True, 1, SECRET)
    await store.alerts.record([raised])
    directory = store.root / "companies" / company
    directory.mkdir(parents=True)
    (directory / "session.db").write_text("keys")
    await store.keys.create("alone", KeyScope.SEND, (company,))
    await store.keys.create("both", KeyScope.SEND, (company, "other"))
    for companies in ((company,), (company, "other"), None):
        webhook = await store.webhooks.create(WebhookConfig(URL, companies), 0)
        event = {"seq": 1, "time_ms": 1, "company": company, "type": ALERT, "data": {"x": SECRET}}
        await store.webhooks.progress(
            WebhookProgress(
                webhook.id, 1, 1, 0, 0, None, None, None, None, [NewDeadLetter(event, 1, "no")]
            )
        )
    await store.database.write(
        lambda conn: conn.execute(
            "INSERT INTO audit (time_ms, actor, pid, method, company, outcome)"
            " VALUES (1, 'uid:0', 1, 'session.start', ?, 'ok')",
            (company,),
        )
    )
    return rows


async def tables_with(database: Database, company: str) -> set[str]:
    """The tables that have a row which names the company anywhere."""

    def read(conn):
        found = set()
        tables = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in conn.execute(f"SELECT * FROM {table}"):
                if any(company in str(value) for value in row):
                    found.add(table)
        return found

    return await database.read(read)


async def test_nothing_is_left_but_who_did_what(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await live(store, "other")
        rows = await live(store, "acme")
        before = await tables_with(store.database, "acme")
        assert before >= {
            *("companies", "outbox", "events", "receipts", "contacts", "inbound", "open_alerts"),
            *("api_keys", "webhooks", "webhook_dead_letters", "audit"),
        }
        last, others = store.log.last_seq, len(await seen(store, "other"))
        waiting: list[Row] = []
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                waiting.append(await store.outbox.view.wait(rows[3].id, {OutboxState.DELIVERED}))

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await store.removals.begin("acme")
            await store.removals.finish("acme")
        assert [row.id for row in waiting] == [rows[3].id]
        assert await tables_with(store.database, "acme") == {"audit"}
        assert not (tmp_path / "companies" / "acme").exists()
        assert (tmp_path / "companies" / "other").exists()
        # What was for it alone is gone, what was for others too is for them.
        assert sorted((key.name, key.companies) for key in await store.keys.list_all()) == [
            ("alone", ("other",)), ("both", ("other",)), ("both", ("other", "other")),
        ]  # fmt: skip
        assert [webhook.wanted.companies for webhook in await store.webhooks.all()] == [
            ("other",), ("other", "other"), None, ("other",), None,
        ]  # fmt: skip
        assert len(await seen(store, "other")) == others
        assert store.outbox.view.companies() == ["other"]
        assert store.outbox.view.accepted("acme") == 0
        # A new one of that name begins with nothing, and the numbers go on.
        assert await seen(store, "acme") == []
        assert (await store.log.read(0, 9, companies={"acme"})).gap is None
        assert (await store.log.read(0, 9)).gap is not None
        assert await store.acquaintances.strangers("acme", ["15550111@s.whatsapp.net"])
        await store.companies.put_wanted("acme", True)
        row, is_new = await store.outbox.submissions.accept(
            new("acme", "another order", "order-0"), 99
        )
        assert is_new
        assert store.log.last_seq > last
        assert await store.outbox.view.list_rows("acme") == [row]
    assert check(tmp_path / "whatsappd.db") == []


async def seen(store: Opened, company: str) -> list[int]:
    batch = await store.log.read(0, 1000, companies={company})
    return [event.seq for event in batch.events]


async def test_what_was_deleted_is_not_in_the_files_either(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await live(store, "acme")
        await store.outbox.submissions.accept(new("acme", SECRET * 300, "long"), 99)
        await store.log.append(Draft("acme", ALERT, {"text": SECRET * 3000}))
        await store.removals.begin("acme")
        await store.removals.finish("acme")
        for path in tmp_path.iterdir():
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes(), path


async def test_a_daemon_that_is_killed_meanwhile_goes_on_after_its_start(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    async def kill(*_arguments: object) -> Never:
        raise Killed

    for step in ("remove_directory", "_narrow_keys", "_end_webhooks"):
        async with opened(tmp_path) as store:
            await live(store, f"acme{step}")
            await store.removals.begin(f"acme{step}")
            with pytest.MonkeyPatch.context() as patch:
                where = removal if hasattr(removal, step) else store.removals
                patch.setattr(where, step, kill)
                with pytest.raises(Killed):
                    await store.removals.finish(f"acme{step}")
    async with opened(tmp_path) as store:
        assert [company.company for company in await store.companies.all()] == []
        assert len(await store.removals.pending()) == 3
        for company in await store.removals.pending():
            await store.removals.finish(company)
            await store.removals.finish(company)  # twice is no more than once
        assert await store.removals.pending() == []
        assert await tables_with(store.database, "acme") == {"audit"}
    assert check(tmp_path / "whatsappd.db") == []


async def test_a_directory_that_cannot_be_deleted_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        await live(store, "acme")
        await store.removals.begin("acme")
        with monkeypatch.context() as patch:

            def refuse(path: Path) -> None:
                raise PermissionError(13, "Permission denied", str(path))

            patch.setattr("whatsappd.store.company_directory._delete_tree", refuse)
            with pytest.raises(StoreFailed, match="cannot be deleted"):
                await store.removals.finish("acme")
        assert await store.removals.pending() == ["acme"]
        await store.removals.finish("acme")
        assert await tables_with(store.database, "acme") == {"audit"}


async def test_an_alert_that_ends_with_its_company_is_no_event_of_a_new_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await live(store, "acme")
        await store.removals.begin("acme")
        await store.removals.finish("acme")
        cleared = AlertChange(AlertKey(AlertRule.SESSION_DOWN, "acme"), False, 1, "it was removed")
        # The store may have refused what was found of it, and take it only now.
        raised = AlertChange(AlertKey(AlertRule.SESSION_DOWN, "acme"), True, 1, "it is down")
        alerts = store.alerts
        await alerts.record([cleared])
        await alerts.record([raised])
        assert await seen(store, "acme") == []
        assert await alerts.all() == {}


async def test_its_keys_and_webhooks_end_and_the_audit_line_is_there_as_soon_as_it_is_none(
    tmp_path: Path,
) -> None:
    def note(subject: str | None) -> AuditRecord:
        return AuditRecord(1, "uid:0", 1, "session.remove", "acme", subject, "ok")

    def refuse(_subject: str | None) -> AuditRecord:
        raise StoreFailed("the disk is full")

    async with opened(tmp_path) as store:
        await live(store, "acme")
        all_keys = await store.keys.list_all()
        alone = next(key for key in all_keys if key.companies == ("acme",))
        revoked: list[str] = []
        store.keys.follow(revoked.append)
        with pytest.raises(StoreFailed):
            await store.removals.begin("acme", refuse)
        assert store.keys.find(alone.id) is not None
        assert await store.removals.pending() == []
        await store.removals.begin("acme", note)
        # A daemon that is killed now comes back without them.
        assert revoked == [alone.id]
        assert (await open_keys(store.database)).find(alone.id) is None
        enabled = {
            each.wanted.companies: each.wanted.enabled for each in await store.webhooks.all()
        }
        assert enabled == {("acme",): False, ("acme", "other"): True, None: True}
        lines = await store.audit.read(after=0, limit=9, company="acme")
        assert [line["method"] for line in lines] == ["session.start", "session.remove"]


async def test_what_a_deliverer_still_has_of_it_becomes_no_dead_letter(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await live(store, "acme")
        [received] = (await store.log.read(0, 9, types=[MESSAGE_RECEIVED])).events
        event = received.event.as_wire()
        webhook = await store.webhooks.create(WebhookConfig(URL), 0)
        await store.removals.begin("acme")
        await store.removals.finish("acme")
        refused = WebhookProgress(
            webhook.id, 1, 1, 0, 0, None, None, None, None, [NewDeadLetter(event, 8, "no")]
        )
        await store.webhooks.progress(refused)
        await store.companies.put_wanted("acme", True)
        await store.webhooks.progress(refused)
        assert await store.webhooks.dead_letters(webhook.id) == []
        # What retention deleted meanwhile is kept: for that the letters are there.
        [alert] = await store.log.append(Draft("acme", ALERT, {}))
        store.log.keep(EventBounds(max_bytes=1))
        await store.log.retain()
        kept = NewDeadLetter(alert.as_wire(), 8, "no")
        await store.webhooks.progress(refused._replace(dead=[kept]))
        assert [each.seq for each in await store.webhooks.dead_letters(webhook.id)] == [alert.seq]


async def test_modes_that_a_worker_gave_its_files_do_not_make_them_stay() -> None:
    # Root may delete anything; the daemon's own user, which is nobody here, may not.
    before = os.geteuid()
    user = before or 54_009
    with TemporaryDirectory() as place:
        beside, directory = Path(place, "beside"), Path(place, "acme")
        inner = directory / "kept" / "deeper"
        beside.mkdir(mode=0o755)
        inner.mkdir(parents=True)
        (inner / "file").write_text("secret")
        (directory / "link").symlink_to(beside)
        for path in (place, directory, directory / "kept", inner, inner / "file", beside):
            os.chown(path, user, -1)
        for path in (inner, directory / "kept", directory):
            path.chmod(0)
        os.seteuid(user)
        try:
            await trio.to_thread.run_sync(_delete_tree, directory)
        finally:
            os.seteuid(before)
        assert not directory.exists()
        assert beside.stat().st_mode & 0o777 == 0o755


def test_a_company_on_a_disk_of_its_own_leaves_nothing_there(tmp_path: Path) -> None:
    disk, link = tmp_path / "disk", tmp_path / "acme"
    (disk / "spool").mkdir(parents=True)
    (disk / "session.db").write_text("keys")
    link.symlink_to(disk)
    _delete_tree(link)
    assert not link.is_symlink()
    assert list(disk.iterdir()) == []


async def test_a_delivery_that_has_yet_to_come_to_its_events_begins_anew(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await live(store, "acme")
        behind = await store.webhooks.create(WebhookConfig(URL), 0)
        done = await store.webhooks.create(WebhookConfig(URL), None)
        others = await store.webhooks.create(WebhookConfig(URL, ("other",)), 0)
        await store.removals.begin("acme")
        changed = store.webhooks.changed()
        await store.removals.finish("acme")
        assert changed.is_set()
        revisions = [
            (await store.webhooks.get(each.id)).revision for each in (behind, done, others)
        ]
        assert revisions == [2, 1, 1]
