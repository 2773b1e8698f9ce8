"""How the gateway asks the daemon about keys: seldom, and once for many."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import httpx
import msgspec
import pytest
import trio
import trio.testing
from gateways import Stack

from whatsappd.api.declaration import Declaration
from whatsappd.api.keys import CHECK, CheckKey, KeyInfo
from whatsappd.errors import Denied, Unreachable
from whatsappd.gateway.auth import BELIEVED_FOR, MAX_ASKING, MAX_FAILURES, ApiKeys
from whatsappd.gateway.problem_details import HttpError
from whatsappd.model.access import KeyScope

READER = KeyInfo(
    id="a", name="a", scope=KeyScope.READ, companies=None, created_ms=1, last_used_ms=None
)


class Link:
    """Answers `key.check` after a moment, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    def on_revoked(self, forget: Callable[[str], None], /) -> None:
        self.revoke = forget

    async def ask(self, method: Declaration[CheckKey, KeyInfo], _params: CheckKey, /) -> KeyInfo:
        assert method is CHECK
        self.asked += 1
        await trio.sleep(0.1)
        if self.error is not None:
            raise self.error
        return READER


HEADERS = {"authorization": "Bearer wak_abcdefgh_" + "s" * 43}


async def test_a_thousand_that_ask_at_once_cost_one_question(autojump_clock) -> None:
    link = Link()
    keys = ApiKeys(link)
    for round_ in (1, 2):
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(keys.identify, HEADERS, "192.0.2.1")
        assert link.asked == round_
        await trio.sleep(BELIEVED_FOR + 0.1)


async def test_a_refusal_is_not_remembered_and_trouble_is_no_refusal(autojump_clock) -> None:
    link = Link()
    keys = ApiKeys(link)
    link.error = Denied("unknown")
    with pytest.raises(HttpError) as refused:
        await keys.identify(HEADERS, "192.0.2.1")
    assert refused.value.status == 401
    for _ in range(20):  # none of these counts as a wrong key
        link.error = Unreachable("away")
        with pytest.raises(Unreachable):
            await keys.identify(HEADERS, "192.0.2.1")
    link.error = None
    assert (await keys.identify(HEADERS, "192.0.2.1")).actor == "key:a"


async def test_while_nobody_can_tell_a_thousand_learn_it_at_once(autojump_clock) -> None:
    link = Link()
    keys = ApiKeys(link)
    link.error = Unreachable("away", path="/d.sock")
    told: list[Unreachable] = []

    async def ask() -> None:
        with pytest.raises(Unreachable) as refused:
            await keys.identify(HEADERS, "192.0.2.1")
        told.append(refused.value)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(ask)
    assert link.asked == 1
    assert {(error.message, error.data["path"]) for error in told} == {("away", "/d.sock")}
    assert len({id(error) for error in told}) == 1000  # each gets a traceback of its own
    link.error = None
    assert (await keys.identify(HEADERS, "192.0.2.1")).actor == "key:a"


async def test_one_who_was_cancelled_leaves_nobody_waiting(autojump_clock) -> None:
    link = Link()
    keys = ApiKeys(link)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.05):
            nursery.start_soon(keys.identify, HEADERS, "192.0.2.2")
            await keys.identify(HEADERS, "192.0.2.1")
        with trio.fail_after(1):
            await keys.identify(HEADERS, "192.0.2.3")


async def test_a_good_key_comes_in_through_any_flood_of_wrong_ones(autojump_clock) -> None:
    """Behind a proxy everybody comes from one address, and so do all users of one host."""

    class Busy(Link):
        together = most = 0

        async def ask(self, method: object, params: CheckKey) -> KeyInfo:
            self.together += 1
            self.most = max(self.most, self.together)
            await trio.sleep(0.001)
            self.together -= 1
            if "good" not in params.key:
                raise Denied("unknown")
            return msgspec.structs.replace(READER, id="good")

    link = Busy()
    keys = ApiKeys(link)
    statuses: list[int] = []

    async def wrong(number: int) -> None:
        with pytest.raises(HttpError) as refused:
            await keys.identify(_bearer(f"wak_{number % 7:08d}_{number:043d}"), "127.0.0.1")
        statuses.append(refused.value.status)

    async with trio.open_nursery() as nursery:
        for number in range(2000):
            nursery.start_soon(wrong, number)
        await trio.testing.wait_all_tasks_blocked(0.0005)
        # At another address it does not even wait for them.
        with trio.fail_after(0.01):
            await keys.identify(_bearer("wak_00000001_" + "good".rjust(43, "x")), "192.0.2.1")
        with trio.fail_after(1):
            found = await keys.identify(
                _bearer("wak_00000002_" + "good".rjust(43, "y")), "127.0.0.1"
            )
        assert found.actor == "key:good"
    assert link.most <= MAX_ASKING + 1
    assert statuses.count(401) == MAX_FAILURES
    assert statuses.count(429) == 2000 - MAX_FAILURES
    assert keys._asking == {}


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_a_revoked_key_is_not_believed_any_more(autojump_clock) -> None:
    link = Link()
    keys = ApiKeys(link)
    await keys.identify(HEADERS, "192.0.2.1")
    link.revoke("key:other")
    await keys.identify(HEADERS, "192.0.2.1")
    assert link.asked == 1
    link.revoke("key:a")
    link.error = Denied("revoked")
    with pytest.raises(HttpError):
        await keys.identify(HEADERS, "192.0.2.1")
    assert link.asked == 2


def test_the_command_makes_lists_and_revokes_keys(stack: Stack) -> None:
    def keys(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "whatsappctl", "--socket", str(stack.daemon.socket)]
        return subprocess.run(
            [*command, "keys", *arguments], capture_output=True, text=True, check=False, timeout=60
        )

    made = keys("create", "web shop", "--scope", "read", "--company", "acme")
    key = made.stdout.strip()
    assert key.startswith("wak_")
    assert key not in made.stderr
    url = f"{stack.gateway.url}/v1/sessions"
    assert httpx.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 200
    listed = keys("list")
    assert "web shop" in listed.stdout
    assert key not in listed.stdout
    [identity] = [
        each["id"]
        for each in json.loads(keys("list", "--json").stdout)["keys"]
        if each["name"] == "web shop"
    ]
    assert keys("revoke", identity).returncode == 0
    gone = keys("revoke", identity)
    assert gone.returncode == 9
    assert identity in gone.stderr
    assert keys("create", "x", "--company", "../etc").returncode == 2
