"""Webhooks as they are stored: their cursors, dead letters, alerts and bounds."""

from __future__ import annotations

from typing import Any

import pytest

from whatsappd.errors import InvalidParams, QueueFull, UnknownDeadLetter, UnknownWebhook
from whatsappd.handlers.webhook_delivery import _types
from whatsappd.model.access import KeyScope
from whatsappd.model.event import SESSION_QR, Draft
from whatsappd.model.webhook import NewDeadLetter, StoredWebhook, WebhookConfig, WebhookProgress
from whatsappd.rules.bounds import DEAD_LETTER_BYTES, DEAD_LETTERS, WEBHOOKS
from whatsappd.store.memory.webhooks import MemoryWebhooks
from whatsappd.store.port import DaemonStore, EventLog
from whatsappd.store.sqlite.webhooks import SqliteWebhooks
from whatsappd.wire.frames import pack

URL = "https://hooks.shop.example/path-that-is-secret"


@pytest.fixture
async def store(store: DaemonStore) -> DaemonStore:
    """With ten events in its log."""
    await store.events.append(*[Draft("acme", "outbox.state", {"n": n}) for n in range(10)])
    return store


def report(webhook: StoredWebhook, **given: Any) -> WebhookProgress:
    base = WebhookProgress(
        webhook.id, webhook.revision, webhook.cursor, 0, 0, None, None, None, None, []
    )
    return base._replace(**given)


def refused(seq: int) -> NewDeadLetter:
    event = {"seq": seq, "time_ms": 1, "company": "acme", "type": "alert", "data": {"n": seq}}
    return NewDeadLetter(event, 8, "status 400")


async def alerts(log: EventLog) -> list[dict[str, Any]]:
    return [each.event.data for each in (await log.read(0, 500, types=["alert"])).events]


async def test_a_webhook_begins_where_it_is_told(store: DaemonStore) -> None:
    assert (await store.webhooks.create(WebhookConfig(URL), None)).cursor == 10
    assert (await store.webhooks.create(WebhookConfig(URL), 3)).cursor == 3
    with pytest.raises(InvalidParams, match="after"):
        await store.webhooks.create(WebhookConfig(URL), 11)
    for _ in range(WEBHOOKS.all - 2):
        await store.webhooks.create(WebhookConfig(URL), None)
    with pytest.raises(InvalidParams, match="100 of 100 webhooks"):
        await store.webhooks.create(WebhookConfig(URL), None)


async def test_progress_adds_up_and_the_cursor_never_goes_back(store: DaemonStore) -> None:
    made = await store.webhooks.create(WebhookConfig(URL), 0)
    assert await store.webhooks.progress(report(made, cursor=5, delivered=5, failures=1)) == 5
    assert await store.webhooks.progress(report(made, cursor=4, delivered=1)) == 5
    found = await store.webhooks.get(made.id)
    assert (found.cursor, found.delivered, found.failures) == (5, 6, 1)
    with pytest.raises(InvalidParams):
        await store.webhooks.progress(report(made, cursor=11))
    with pytest.raises(UnknownWebhook):
        await store.webhooks.progress(report(made._replace(id="nobody"), cursor=1))


async def test_a_pause_rings_once_and_clears_once_and_tells_no_path(store: DaemonStore) -> None:
    made = await store.webhooks.create(WebhookConfig(URL, ("acme",)), 0)
    paused = report(made, failing_since_ms=5, paused_since_ms=7, last_error="status 500")
    for _ in range(3):
        await store.webhooks.progress(paused)
    assert (await store.webhooks.get(made.id)).state == "paused"
    for _ in range(3):
        await store.webhooks.progress(report(made))
    found = await alerts(store.events)
    assert [(each["state"], each["since_ms"], each["company"]) for each in found] == [
        ("raised", 7, "acme"),
        ("cleared", 7, "acme"),
    ]
    assert "status 500" in found[0]["detail"]
    assert all("secret" not in each["detail"] for each in found)


async def test_to_configure_or_remove_a_paused_one_clears_the_alert(store: DaemonStore) -> None:
    for end in ("update", "remove"):
        made = await store.webhooks.create(WebhookConfig(URL), 0)
        await store.webhooks.progress(report(made, paused_since_ms=7))
        if end == "update":
            await store.webhooks.update(made.id, lambda wanted: wanted._replace(enabled=False))
            # What the deliverer thought before that does not count any more.
            await store.webhooks.progress(report(made, paused_since_ms=7))
            assert (await store.webhooks.get(made.id)).paused_since_ms is None
        else:
            await store.webhooks.remove(made.id)
    assert [each["state"] for each in await alerts(store.events)] == ["raised", "cleared"] * 2


async def test_events_that_retention_took_are_an_alert(store: DaemonStore) -> None:
    made = await store.webhooks.create(WebhookConfig(URL), 0)
    await store.webhooks.progress(report(made, gone=(3, 9)))
    [alert] = await alerts(store.events)
    assert alert["rule"] == "webhook_events_gone"
    assert "events between 3 and 9" in alert["detail"]
    await store.webhooks.progress(report(made, gone=(9, 12)))
    assert (await store.webhooks.get(made.id)).gone == 7


async def test_how_long_the_oldest_undelivered_event_waits(store: DaemonStore, clock) -> None:
    start, webhooks = store.events.last_seq, store.webhooks
    clock.now_ms += 5
    [first] = await store.events.append(Draft("acme", "alert", {}))
    clock.now_ms += 5
    [second] = await store.events.append(Draft("acme", "alert", {}))
    made = await webhooks.create(WebhookConfig(URL), start)
    await webhooks.create(WebhookConfig(URL, enabled=False), start)
    assert await webhooks.waiting_since() == {made.id: first.time_ms}
    await webhooks.progress(report(made, cursor=first.seq))
    assert await webhooks.waiting_since() == {made.id: second.time_ms}
    await webhooks.progress(report(made, cursor=second.seq))
    assert await webhooks.waiting_since() == {}


async def test_dead_letters_are_kept_once_and_with_their_event(store: DaemonStore) -> None:
    made = await store.webhooks.create(WebhookConfig(URL), 0)
    await store.webhooks.progress(report(made, dead=[refused(1), refused(2)]))
    await store.webhooks.progress(report(made, cursor=2, dead=[refused(2)]))
    first, second = await store.webhooks.dead_letters(made.id)
    assert (first.seq, second.seq) == (1, 2)
    assert await store.webhooks.dead_letters(made.id, after=first.id) == [second]

    assert await store.webhooks.due_resend(made.id) is None
    assert await store.webhooks.resend(made.id, [second.id]) == 1
    assert await store.webhooks.with_resends() == [made.id]
    assert await store.webhooks.due_resend(made.id) == (second.id, refused(2).event)
    await store.webhooks.resent(made.id, second.id, "status 401")
    assert await store.webhooks.due_resend(made.id) is None
    [_, again] = await store.webhooks.dead_letters(made.id)
    assert (again.attempts, again.reason) == (9, "status 401")

    with pytest.raises(UnknownDeadLetter):
        await store.webhooks.resend(made.id, [first.id, 999])
    assert await store.webhooks.with_resends() == []
    await store.webhooks.resend(made.id, None)
    await store.webhooks.resent(made.id, first.id, None)
    found = await store.webhooks.get(made.id)
    assert (found.dead_letters, found.delivered) == (1, 1)
    assert await store.webhooks.discard(made.id, None) == 1


@pytest.mark.parametrize("by_bytes", [False, True])
async def test_full_of_dead_letters_nothing_is_thrown_away(
    store: DaemonStore, by_bytes: bool
) -> None:
    webhooks = store.webhooks
    assert isinstance(webhooks, SqliteWebhooks | MemoryWebhooks)
    size = len(pack(refused(1).event))
    if by_bytes:
        webhooks.letter_bytes_bound = DEAD_LETTER_BYTES._replace(each=3 * size - 1, all=5 * size)
    else:
        webhooks.letters_bound = DEAD_LETTERS._replace(each=2)
    made = await webhooks.create(WebhookConfig(URL), 0)
    await webhooks.progress(report(made, dead=[refused(1), refused(2)]))
    await webhooks.progress(report(made, dead=[refused(1), refused(2)]))  # nothing more
    assert (await webhooks.get(made.id)).dead_bytes == 2 * size
    with pytest.raises(QueueFull, match=r"webhook .* holds .* dead letters: resend or discard"):
        await webhooks.progress(report(made, cursor=3, dead=[refused(3)]))
    found = await webhooks.get(made.id)
    assert (found.cursor, found.dead_letters) == (0, 2)
    await webhooks.discard(made.id, None)
    assert await webhooks.progress(report(made, cursor=3, dead=[refused(3)])) == 3
    [letter] = await webhooks.dead_letters(made.id)
    await webhooks.resent(made.id, letter.id, None)
    assert (await webhooks.get(made.id)).dead_bytes == 0


async def test_the_dead_letters_of_others_webhooks_leave_room_for_roots(store: DaemonStore) -> None:
    webhooks = store.webhooks
    assert isinstance(webhooks, SqliteWebhooks | MemoryWebhooks)
    size = len(pack(refused(1).event))
    webhooks.letter_bytes_bound = DEAD_LETTER_BYTES._replace(all=4 * size, kept=2 * size)
    one, two = [await webhooks.create(WebhookConfig(URL), 0, owner) for owner in ("key:a", "key:b")]
    ours = await webhooks.create(WebhookConfig(URL), 0)
    await webhooks.progress(report(one, dead=[refused(1), refused(2)]))
    with pytest.raises(QueueFull, match="all callers together hold") as told:
        await webhooks.progress(report(two, dead=[refused(1)]))
    assert one.id not in told.value.message
    await webhooks.progress(report(ours, dead=[refused(1), refused(2)]))
    held = await webhooks.count_dead_letters()
    assert {each: count for each, (count, _) in held.items()} == {one.id: 2, ours.id: 2}
    assert held[ours.id][1] == 2 * size


async def test_whoever_delivers_is_told_of_changes(store: DaemonStore) -> None:
    changed = store.webhooks.changed()
    made = await store.webhooks.create(WebhookConfig(URL), 0)
    assert changed.is_set()
    changed = store.webhooks.changed()
    await store.webhooks.progress(report(made, cursor=1, dead=[refused(1)]))
    assert not changed.is_set()
    await store.webhooks.resend(made.id, None)
    assert changed.is_set()


async def test_a_revoked_keys_webhooks_are_told_no_codes_any_more(
    store: DaemonStore,
) -> None:
    webhooks, keys = store.webhooks, store.keys
    made, _ = await keys.create("shop", KeyScope.ADMIN, ("acme",))
    stays, _ = await keys.create("other", KeyScope.ADMIN, None)
    wanted = WebhookConfig("https://shop.example/", types=("session.qr", "session.state"))
    both = await webhooks.create(wanted, None, f"key:{made.id}")
    codes = await webhooks.create(wanted._replace(types=("session.qr",)), None, f"key:{made.id}")
    others = await webhooks.create(wanted, None, f"key:{stays.id}")
    everything = await webhooks.create(wanted._replace(types=None), None)
    assert SESSION_QR in _types(both)
    assert SESSION_QR not in _types(everything)  # it was not asked for by name
    await keys.revoke(made.id)
    both, codes, others = [await webhooks.get(each.id) for each in (both, codes, others)]
    assert (both.wanted.types, both.revision, both.wanted.enabled) == (("session.state",), 2, True)
    assert (codes.wanted.enabled, others.wanted.types) == (False, wanted.types)


async def test_one_key_has_a_bounded_number_of_webhooks(store: DaemonStore) -> None:
    webhooks = store.webhooks
    wanted = WebhookConfig("https://shop.example/")
    for _ in range(WEBHOOKS.each):
        await webhooks.create(wanted, None, "key:one")
    with pytest.raises(InvalidParams, match="key one holds 25 of 25 webhooks"):
        await webhooks.create(wanted, None, "key:one")
    for owner in ("key:two", None):
        await webhooks.create(wanted, None, owner)


async def test_what_its_receiver_refused_for_good_is_told_nothing_more(store: DaemonStore) -> None:
    made = await store.webhooks.create(WebhookConfig(URL), 0)
    await store.webhooks.disable(made.id, made.revision - 1, "gone")  # it was changed since
    assert (await store.webhooks.get(made.id)).wanted.enabled
    await store.webhooks.disable(made.id, made.revision, "gone")
    found = await store.webhooks.get(made.id)
    assert (found.state, found.cursor, found.last_error) == ("disabled", 0, "gone")
    await store.webhooks.disable(made.id, found.revision, "again")
    [alert] = await alerts(store.events)
    assert (alert["rule"], alert["state"]) == ("webhook_disabled", "raised")


async def test_a_new_secret_is_made_if_asked_for(store: DaemonStore) -> None:
    made = await store.webhooks.create(WebhookConfig(URL), 0)
    same = await store.webhooks.update(made.id, lambda wanted: wanted)
    other = await store.webhooks.update(made.id, lambda wanted: wanted, rotate_secret=True)
    assert same.secret == made.secret != other.secret
    assert (made.revision, same.revision, other.revision) == (1, 2, 3)


async def test_a_change_that_is_refused_leaves_all_as_it_was(store: DaemonStore) -> None:
    made = await store.webhooks.create(WebhookConfig(URL), 0)

    def refuse(_wanted: WebhookConfig) -> WebhookConfig:
        raise InvalidParams("url: it must be https", field="url")

    with pytest.raises(InvalidParams):
        await store.webhooks.update(made.id, refuse)
    assert await store.webhooks.all() == [made]
    assert await store.webhooks.count_by_owner() == {"uid:0": 1}
