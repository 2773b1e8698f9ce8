"""Webhooks as they are stored: what survives a restart, and a caller who hangs up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from whatsappd.clock import now_ms
from whatsappd.handlers.webhook_delivery import webhook_values
from whatsappd.model.event import Draft
from whatsappd.model.webhook import NewDeadLetter, StoredWebhook, WebhookConfig, WebhookProgress
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.event_log import SqliteEventLog, open_event_log
from whatsappd.store.sqlite.webhooks import SqliteWebhooks

URL = "https://hooks.shop.example/path-that-is-secret"


@dataclass
class Store:
    log: SqliteEventLog
    webhooks: SqliteWebhooks


@pytest.fixture
async def store(database: Database, log: SqliteEventLog) -> Store:
    await log.append(*[Draft("acme", "outbox.state", {"n": n}) for n in range(10)])
    return Store(log, SqliteWebhooks(database, log, now_ms))


def report(webhook: StoredWebhook, **given: Any) -> WebhookProgress:
    base = WebhookProgress(
        webhook.id, webhook.revision, webhook.cursor, 0, 0, None, None, None, None, []
    )
    return base._replace(**given)


def refused(seq: int) -> NewDeadLetter:
    event = {"seq": seq, "time_ms": 1, "company": "acme", "type": "alert", "data": {"n": seq}}
    return NewDeadLetter(event, 8, "status 400")


async def test_what_was_configured_is_there_after_a_restart(path: Path) -> None:
    wanted = WebhookConfig(URL, ("acme", "globex"), ("alert",), "of the shop", True, False)
    async with open_database(path) as database:
        made = await SqliteWebhooks(database, await open_event_log(database), now_ms).create(
            wanted, None
        )
    async with open_database(path) as database:
        webhooks = SqliteWebhooks(database, await open_event_log(database), now_ms)
        assert await webhooks.all() == [made]
        assert made.wanted == wanted
        assert made.state == "disabled"
        assert made.secret not in str(webhook_values(made, 0))


async def test_the_deliverer_is_told_also_if_whoever_changed_something_hangs_up(
    store: Store, hang_up
) -> None:
    made = await store.webhooks.create(WebhookConfig(URL), 0)
    await store.webhooks.progress(report(made, cursor=1, dead=[refused(1)]))
    for change in (
        lambda: store.webhooks.create(WebhookConfig(URL), None),
        lambda: store.webhooks.update(made.id, lambda wanted: wanted._replace(enabled=False)),
        lambda: store.webhooks.resend(made.id, None),
        lambda: store.webhooks.remove(made.id),
    ):
        changed = store.webhooks.changed()
        await hang_up(change)
        assert changed.is_set()
    assert [webhook.id for webhook in await store.webhooks.all()] != [made.id]
