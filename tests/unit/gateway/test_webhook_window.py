"""The window: each company in its order, and a cursor that nothing passes unfinished."""

from __future__ import annotations

import time
from typing import Any

import pytest
from documents import block
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httpcore", reason="the extra `gateway` is not installed")

from whatsappd.api.events import LoggedEvent
from whatsappd.gateway.webhooks.signing import body_of, headers_for, id_of, signature
from whatsappd.gateway.webhooks.window import Window
from whatsappd.store.webhook_rows import new_secret


def event(seq: int, company: str) -> LoggedEvent:
    return LoggedEvent(seq=seq, time_ms=5, company=company, type="x", data={})


def test_an_empty_window_moves_with_what_was_read() -> None:
    window = Window(10)
    assert (window.cursor, window.read, len(window)) == (10, 10, 0)
    assert window.add([], 500) == []
    assert window.cursor == 500


def test_the_cursor_waits_for_the_oldest() -> None:
    window = Window(0)
    assert window.add([event(1, "a"), event(2, "b"), event(4, "a")], 5) == ["a", "b"]
    assert window.cursor == 0
    window.end("b")
    assert window.cursor == 0
    window.end("a")
    assert (window.cursor, window.oldest) == (3, 4)
    assert window.head("b") is None
    # Known again: it wants somebody to deliver it.
    assert window.add([event(6, "b"), event(7, "a")], 7) == ["b"]
    window.end("a")
    assert window.cursor == 5


@given(st.lists(st.sampled_from("abc"), max_size=30), st.data())
def test_every_event_ends_once_and_in_the_order_of_its_company(
    companies: list[str], data: st.DataObject
) -> None:
    window = Window(0)
    events = [event(seq, company) for seq, company in enumerate(companies, 1)]
    running = set(window.add(events, len(events)))
    ended: list[LoggedEvent] = []
    while running:
        company = data.draw(st.sampled_from(sorted(running)))
        head = window.head(company)
        if head is None:
            running.discard(company)
            continue
        window.end(company)
        ended.append(head)
        unfinished = {each.seq for each in events} - {each.seq for each in ended}
        assert window.cursor == min(unfinished, default=len(events) + 1) - 1
    assert sorted(each.seq for each in ended) == [each.seq for each in events]
    for company in "abc":
        mine = [each.seq for each in ended if each.company == company]
        assert mine == sorted(mine)


def test_the_signature_is_that_of_the_published_specification() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks (its libraries' tests).
    assert (
        signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
        )
        == "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_an_event_has_one_identity_and_one_body() -> None:
    first, second = event(7, "acme"), event(7, "acme")
    assert id_of(first) == id_of(second) == "evt_7_5"
    assert body_of(first) == body_of(second)
    headers = headers_for("whsec_AAAA", "evt_7_5", 1, b"{}")
    assert headers["webhook-id"] == "evt_7_5"
    assert headers["webhook-signature"].startswith("v1,")


def test_the_example_in_the_guide_believes_us_and_nobody_else() -> None:
    names: dict[str, Any] = {}
    exec(block("test:verify"), names)
    verify = names["verify"]
    secret, other = new_secret(), new_secret()
    body, now = body_of(event(7, "acme")), int(time.time())
    headers = headers_for(secret, "evt_7_5", now, body)
    assert verify(secret, headers, body)
    assert not verify(other, headers, body)
    assert not verify(secret, headers, body + b" ")
    assert not verify(secret, {**headers, "webhook-id": "evt_8_5"}, body)
    assert not verify(secret, {**headers, "webhook-timestamp": str(now - 1)}, body)
    assert not verify(secret, headers_for(secret, "evt_7_5", now - 3600, body), body)
