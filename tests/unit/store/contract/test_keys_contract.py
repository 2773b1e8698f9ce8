"""API keys: who may come in, until the key is revoked."""

from __future__ import annotations

import pytest

from whatsappd.errors import Denied, InvalidParams, StoreFailed, UnknownKey
from whatsappd.model.access import KeyScope
from whatsappd.model.audit import AuditRecord
from whatsappd.store.key_book import MAX_KEYS
from whatsappd.store.port import DaemonStore


async def test_whoever_has_a_keys_text_comes_in_until_it_is_revoked(
    store: DaemonStore, clock
) -> None:
    key, text = await store.keys.create("shop", KeyScope.SEND, ("acme",))
    other, _ = await store.keys.create("other", KeyScope.READ, None)
    assert (key.created_ms, key.last_used_ms, key.companies) == (clock.now_ms, None, ("acme",))
    clock.now_ms += 5
    assert await store.keys.check(text) == key._replace(last_used_ms=clock.now_ms)
    assert sorted(each.id for each in await store.keys.list_all()) == sorted([key.id, other.id])
    told: list[str] = []
    stop = store.keys.follow(told.append)
    assert (await store.keys.revoke(key.id)).id == key.id
    with pytest.raises(Denied):
        await store.keys.check(text)
    with pytest.raises(UnknownKey):
        await store.keys.revoke(key.id)
    assert told == [key.id]
    assert store.keys.find(key.id) is None
    assert store.keys.find(other.id) == other
    stop()
    await store.keys.revoke(other.id)
    assert told == [key.id]


async def test_a_change_of_a_key_and_its_audit_line_are_both_stored_or_neither(
    store: DaemonStore,
) -> None:
    def full(_identity: str | None) -> AuditRecord:
        raise StoreFailed("the disk is full")

    def note(identity: str | None) -> AuditRecord:
        return AuditRecord(1, "uid:0", 1, "key", None, identity, "ok")

    with pytest.raises(StoreFailed):
        await store.keys.create("shop", KeyScope.SEND, None, full)
    assert await store.keys.list_all() == []
    key, text = await store.keys.create("shop", KeyScope.SEND, None, note)
    with pytest.raises(StoreFailed):
        await store.keys.revoke(key.id, full)
    assert (await store.keys.check(text)).id == key.id
    await store.keys.revoke(key.id, note)
    lines = await store.audit.read(after=0, limit=10, company=None)
    assert [each["subject"] for each in lines] == [key.id, key.id]


async def test_a_key_takes_its_consumers_along(store: DaemonStore) -> None:
    keys, consumers = store.keys, store.consumers
    key, _ = await keys.create("shop", KeyScope.READ, ("acme",))
    other, _ = await keys.create("other", KeyScope.READ, ("acme",))
    for name in (f"key:{key.id}:crm", f"key:{key.id}:erp", f"key:{other.id}:crm", "crm"):
        await consumers.place(name)
    await keys.revoke(key.id)
    assert [each.name for each in await consumers.all()] == ["crm", f"key:{other.id}:crm"]


async def test_what_is_no_key_is_refused_without_a_hint(store: DaemonStore) -> None:
    keys = store.keys
    _, text = await keys.create("shop", KeyScope.READ, None)
    prefix, identity, secret = text.split("_", 2)  # the secret may hold underscores
    refusals = set()
    for wrong in [
        "",
        "wak_",
        text[:-1],
        text + "x",
        text + "\n",
        f"wak_zzzzzzzz_{secret}",
        f"{prefix}_{identity}_{'A' * 43}",
        text.upper(),
        "\udcff",
        "wak_" + "é" * 60,
    ]:
        with pytest.raises(Denied) as refused:
            await keys.check(wrong)
        refusals.add(refused.value.message)
    assert len(refusals) == 1


async def test_names_and_numbers_of_keys_are_bounded(
    store: DaemonStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = store.keys
    for name in ["", "x" * 101, "two\nlines"]:
        with pytest.raises(InvalidParams) as refused:
            await keys.create(name, KeyScope.READ, None)
        assert refused.value.data["field"] == "name"
    monkeypatch.setattr("whatsappd.store.key_book.MAX_KEYS", 1)
    await keys.create("one", KeyScope.READ, None)
    with pytest.raises(InvalidParams):
        await keys.create("two", KeyScope.READ, None)
    assert MAX_KEYS == 1000
