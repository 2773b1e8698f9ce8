"""A company that is removed leaves nothing behind, and a new one of its name begins anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from whatsappd.errors import StoreFailed
from whatsappd.model.access import KeyScope
from whatsappd.model.arrival import Arrival, Receipt
from whatsappd.model.audit import AuditRecord
from whatsappd.model.content import Text
from whatsappd.model.event import ALERT, MESSAGE_RECEIVED, Draft
from whatsappd.model.message import NewMessage
from whatsappd.model.webhook import NewDeadLetter, WebhookConfig, WebhookProgress
from whatsappd.rules.alerts import AlertChange, AlertKey, AlertRule
from whatsappd.store.port import DaemonStore

FRIEND = "15550111@s.whatsapp.net"
URL = "https://example.org/hook"
DOWN = AlertKey(AlertRule.SESSION_DOWN, "acme")


def note(subject: str | None) -> AuditRecord:
    return AuditRecord(1, "uid:0", 1, "session.remove", "acme", subject, "ok")


async def live(store: DaemonStore, company: str) -> None:
    """The company leaves its traces everywhere."""
    await store.companies.put_wanted(company, True)
    new = NewMessage(company, FRIEND, Text("an order"), "order-1")
    await store.outbox.submissions.accept(new, 99)
    await store.inbound.take(
        company,
        [
            Arrival(Draft(company, MESSAGE_RECEIVED, {}), number=7, people=[FRIEND]),
            Arrival(None, receipt=Receipt(["UNKNOWN"], "read", 1)),
        ],
    )
    await store.alerts.record(
        [AlertChange(AlertKey(AlertRule.SESSION_DOWN, company), True, 1, "it is down")]
    )


async def remove(store: DaemonStore, company: str) -> None:
    await store.removals.begin(company, note)
    await store.removals.finish(company)


async def test_a_new_company_of_that_name_finds_nothing(store: DaemonStore, tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    await live(store, "other")
    await live(store, "acme")
    last = store.events.last_seq
    await store.removals.begin("acme", note)
    assert await store.removals.pending() == ["acme"]
    assert [each.company for each in await store.companies.all()] == ["other"]
    await store.removals.finish("acme")
    await store.removals.finish("acme")  # twice is no more than once
    assert await store.removals.pending() == []
    assert not (tmp_path / "acme").exists()
    await store.companies.put_wanted("acme", True)
    assert await store.outbox.view.list_rows("acme") == []
    assert store.outbox.view.companies() == ["other"]
    assert store.outbox.view.accepted("acme") == 0
    assert await store.inbound.taken("acme") == 0
    assert await store.acquaintances.strangers("acme", [FRIEND]) == {FRIEND}
    assert [key.company for key in await store.alerts.all()] == ["other"]
    row, is_new = await store.outbox.submissions.accept(
        NewMessage("acme", FRIEND, Text("another order"), "order-1"), 99
    )
    assert is_new
    await store.outbox.handovers.begin(row.id)
    acked = await store.outbox.handovers.acknowledge(row.id, "UNKNOWN", 1)
    assert acked.state == "sent"  # the receipt was of the other acme's message
    # The numbers go on, and only readers of all companies are told of a gap.
    batch = await store.events.read(0, 99, companies={"acme"})
    assert batch.gap is None
    assert min(event.seq for event in batch.events) > last
    assert (await store.events.read(0, 99)).gap is not None
    lines = await store.audit.read(after=0, limit=9, company="acme")
    assert [line["method"] for line in lines] == ["session.remove"]


async def test_keys_and_webhooks_lose_it_or_end(store: DaemonStore) -> None:
    await live(store, "acme")
    alone, _ = await store.keys.create("alone", KeyScope.READ, ("acme",))
    both, _ = await store.keys.create("both", KeyScope.READ, ("acme", "other"))
    every, _ = await store.keys.create("all", KeyScope.READ, None)
    told: list[str] = []
    store.keys.follow(told.append)
    hook = await store.webhooks.create(WebhookConfig(URL, ("acme",)), 0)
    shared = await store.webhooks.create(WebhookConfig(URL, ("acme", "other")), 0)
    behind = await store.webhooks.create(WebhookConfig(URL), 0)
    done = await store.webhooks.create(WebhookConfig(URL), None)
    changed = store.webhooks.changed()
    await store.removals.begin("acme", note)
    assert changed.is_set()
    assert told == [alone.id]
    assert not (await store.webhooks.get(hook.id)).wanted.enabled
    late, _ = await store.keys.create("late", KeyScope.READ, ("acme",))
    await store.removals.finish("acme")
    assert sorted(told) == sorted([alone.id, late.id, both.id])
    assert {key.id: key.companies for key in await store.keys.list_all()} == {
        both.id: ("other",),
        every.id: None,
    }
    assert {each.id: each.wanted.companies for each in await store.webhooks.all()} == {
        shared.id: ("other",),
        behind.id: None,
        done.id: None,
    }
    # A delivery that has yet to come to its events begins anew.
    assert [(await store.webhooks.get(each.id)).revision for each in (behind, done)] == [2, 1]


async def test_what_is_told_of_it_later_is_no_event_of_a_new_one(store: DaemonStore) -> None:
    await live(store, "acme")
    [received] = (await store.events.read(0, 9, types=[MESSAGE_RECEIVED])).events
    webhook = await store.webhooks.create(WebhookConfig(URL), 0)
    report = WebhookProgress(
        *(webhook.id, 1, 1, 0, 0, None, None, None, None),
        [NewDeadLetter(received.event.as_wire(), 8, "no")],
    )
    await store.webhooks.progress(report)
    assert len(await store.webhooks.dead_letters(webhook.id)) == 1
    await remove(store, "acme")
    assert await store.webhooks.dead_letters(webhook.id) == []
    await store.companies.put_wanted("acme", True)
    await store.webhooks.progress(report)
    assert await store.webhooks.dead_letters(webhook.id) == []
    await remove(store, "acme")
    await store.alerts.record([AlertChange(DOWN, False, 1, "it was removed")])
    await store.alerts.record([AlertChange(DOWN, True, 1, "it is down")])
    assert (await store.events.read(0, 99, companies={"acme"})).events == []
    assert (await store.events.read(0, 99, types=[ALERT])).events != []
    assert await store.alerts.all() == {}


async def test_without_its_audit_line_nothing_is_begun(store: DaemonStore) -> None:
    def full(_subject: str | None) -> AuditRecord:
        raise StoreFailed("the disk is full")

    await live(store, "acme")
    key, _ = await store.keys.create("alone", KeyScope.READ, ("acme",))
    with pytest.raises(StoreFailed):
        await store.removals.begin("acme", full)
    assert await store.removals.pending() == []
    assert [each.company for each in await store.companies.all()] == ["acme"]
    assert store.keys.find(key.id) == key
