"""Who comes in, for what, and what is told to those who do not."""

from __future__ import annotations

import httpx
import pytest
import trio
from daemons import PATIENCE, running_daemon
from gateways import Stack, running_gateway
from websockets import Refused, open_websocket

#: What each scope may do, by the least scope that is needed.
ROUTES = [
    ("GET", "/v1/sessions", "read"),
    ("GET", "/v1/sessions/acme", "read"),
    ("GET", "/v1/sessions/acme/messages", "read"),
    ("GET", "/v1/sessions/acme/messages/1234567890abcdef", "read"),
    ("GET", "/v1/events", "read"),
    ("GET", "/v1/health", "read"),
    ("GET", "/v1/metrics", "read"),
    ("POST", "/v1/sessions/acme/messages", "send"),
    ("POST", "/v1/sessions/acme/messages/1234567890abcdef/cancel", "send"),
    ("POST", "/v1/sessions/acme/messages/1234567890abcdef/resolve", "send"),
    ("POST", "/v1/sessions", "admin"),
    ("PUT", "/v1/sessions/acme", "admin"),
    ("PATCH", "/v1/sessions/acme", "admin"),
    ("DELETE", "/v1/sessions/acme", "admin"),
    ("POST", "/v1/sessions/acme/start", "admin"),
    ("POST", "/v1/sessions/acme/stop", "admin"),
    ("POST", "/v1/sessions/acme/restart", "admin"),
    ("POST", "/v1/sessions/acme/logout", "admin"),
    ("GET", "/v1/sessions/acme/qr", "admin"),
    ("GET", "/v1/sessions/acme/pairing", "admin"),
    ("GET", "/v1/webhooks", "admin"),
    ("POST", "/v1/webhooks", "admin"),
    ("GET", "/v1/webhooks/12345678", "admin"),
    ("PATCH", "/v1/webhooks/12345678", "admin"),
    ("DELETE", "/v1/webhooks/12345678", "admin"),
    ("POST", "/v1/webhooks/12345678/test", "admin"),
    ("GET", "/v1/webhooks/12345678/dead-letters", "admin"),
    ("POST", "/v1/webhooks/12345678/dead-letters/resend", "admin"),
    ("POST", "/v1/webhooks/12345678/dead-letters/discard", "admin"),
]
RANK = ["read", "send", "admin"]


async def test_each_route_needs_its_scope_and_its_company(stack: Stack) -> None:
    async with stack.http() as http:
        document = (await http.get("/openapi.json")).json()
    guarded = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        if path.startswith("/v1/")
        for method in item
    }
    assert len(guarded) == len(ROUTES), "a route is missing from this table"

    async with stack.http() as http:
        for scope in RANK:
            key = await stack.key(scope)
            elsewhere = await stack.key(scope, ["globex"])
            for method, path, needed in ROUTES:
                # No body: a route that lets us in complains about that.
                answer = await http.request(method, path, headers=_bearer(key))
                allowed = RANK.index(scope) >= RANK.index(needed)
                assert (answer.status_code != 403) == allowed, (scope, method, path, answer.text)
                assert answer.status_code not in (401, 500)
                if "acme" in path:
                    bound = await http.request(method, path, headers=_bearer(elsewhere))
                    assert bound.status_code == 403
                    assert bound.json()["name"] == "denied"
        for method, path, _ in ROUTES:
            assert (await http.request(method, path)).status_code == 401


async def test_a_key_for_some_companies_sees_nothing_of_others(stack: Stack) -> None:
    async with stack.daemon.client() as client:
        for company in ("acme", "globex"):
            await client.call("session.start", company=company)
    key = await stack.key("admin", ["globex"])
    async with stack.http(key) as http:
        found = (await http.get("/v1/sessions")).json()["sessions"]
        assert [each["company"] for each in found] == ["globex"]
        events = (await http.get("/v1/events")).json()["events"]
        assert {event["company"] for event in events} == {"globex"}
        assert (await http.get("/v1/events?company=acme")).status_code == 403
        assert (await http.post("/v1/sessions", json={"company": "acme"})).status_code == 403
        assert (await http.get("/v1/health")).status_code == 403
    with pytest.raises(Refused) as refused:
        async with open_websocket(stack.gateway.port, "company=acme", key=key):
            pass
    assert refused.value.status == 403
    assert refused.value.problem["name"] == "denied"


async def test_wrong_keys_are_counted_refused_and_logged_without_the_secret(
    own_stack: Stack,
) -> None:
    stack = own_stack
    good = await stack.make_key()
    wrong = good["key"][:-4] + "AAAA"
    async with stack.http() as http:
        assert (await http.get("/v1/sessions", headers=_bearer(good["key"]))).status_code == 200
        statuses = []
        for _ in range(12):
            answer = await http.get("/v1/sessions", headers=_bearer(wrong))
            statuses.append(answer.status_code)
        assert statuses == [401] * 10 + [429] * 2
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["name"] == "too_many_failures"
        # Whoever was let in before is not shut out by a stranger at the same address, ...
        assert (await http.get("/v1/sessions", headers=_bearer(good["key"]))).status_code == 200
        # ... until the key is revoked, which works within seconds.
        async with stack.daemon.client() as client:
            await client.call("key.revoke", id=good["id"])
        with trio.fail_after(6):
            while (await http.get("/v1/sessions", headers=_bearer(good["key"]))).is_success:
                await trio.sleep(0.1)
    log = stack.gateway.log()
    for secret in (good["key"], wrong, good["key"][-30:]):
        assert secret not in log
    refused = [line for line in stack.gateway.lines() if line["event"] == "request_refused"]
    assert [line["status"] for line in refused[:12]] == statuses
    assert refused[0]["actor"] == f"key:{good['id']}?"
    assert refused[0]["address"] == "127.0.0.1"


async def test_qr_codes_are_for_admins_wherever_they_stand(stack: Stack) -> None:
    admin, sender = await stack.key("admin"), await stack.key("send")
    before = await stack.last_seq()
    async with stack.http(admin) as http:
        await http.put("/v1/sessions/codes")
        with trio.fail_after(PATIENCE):
            while not (found := await http.get("/v1/sessions/codes")).json()["qr"]:
                await trio.sleep(0.05)
        code = found.json()["qr"]
        assert code in (await http.get(f"/v1/events?after={before}")).text
    async with stack.http(sender) as http:
        for path in ("/v1/sessions", "/v1/sessions/codes", f"/v1/events?after={before}"):
            answer = await http.get(path)
            assert answer.status_code == 200
            assert "codes" in answer.text
            assert "linked_devices" not in answer.text
        assert (await http.get("/v1/events?type=session.qr")).status_code == 403
    async with open_websocket(stack.gateway.port, f"after={before}", key=sender) as events:
        while True:
            event = await events.event(company="codes")
            assert event["type"] != "session.qr"
            if event["data"]["state"] == "pairing":
                break
        async with stack.daemon.client() as client:
            await client.call("session.stop", company="codes")
        assert (await events.event(company="codes"))["data"]["state"] == "stopped"


async def test_a_browser_offers_its_key_as_a_subprotocol(stack: Stack) -> None:
    key = await stack.key("read")
    offered = ["whatsappd.v1", f"bearer.{key}"]
    async with open_websocket(stack.gateway.port, subprotocols=offered) as events:
        assert events.accepted.subprotocol == "whatsappd.v1"
        assert "ready" in await events.receive()
    with pytest.raises(Refused) as refused:
        async with open_websocket(stack.gateway.port, subprotocols=["whatsappd.v1"]):
            pass
    assert refused.value.status == 401


async def test_without_authentication_only_this_host_s_own_pages_come_in() -> None:
    async with (
        running_daemon("--sandbox") as daemon,
        running_gateway(daemon, "--no-auth") as gateway,
        httpx.AsyncClient(base_url=gateway.url) as http,
    ):
        own = f"127.0.0.1:{gateway.port}"
        here = {"Host": own, "Origin": f"http://{own}"}
        for headers, status in [
            ({}, 200),  # what programs send
            ({"Host": f"localhost:{gateway.port}"}, 200),
            ({"Host": "[::1]"}, 200),
            (here, 200),
            ({**here, "Sec-Fetch-Site": "same-origin"}, 200),
            ({"Sec-Fetch-Site": "none"}, 200),  # typed into the address bar
            ({"Referer": f"http://{own}/"}, 200),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": f"http://localhost:{gateway.port + 1}"}, 403),
            ({"Origin": "http://[evil"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),  # <img>, <script>, a form: no Origin
            ({"Sec-Fetch-Site": "same-site"}, 403),  # a page of another port of this host
            ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
              "Sec-Fetch-Dest": "document"}, 403),
            ({"Referer": "https://evil.example/"}, 403),  # browsers that know no Sec-Fetch-Site
            ({"Host": "evil.example"}, 403),
            ({"Host": "127.0.0.1.evil.example"}, 403),
            ({"Host": "[evil"}, 403),
        ]:  # fmt: skip
            answer = await http.post("/v1/sessions/acme/stop", headers=headers)
            assert answer.status_code == (404 if status == 200 else status), headers
            for accept in ("*/*", "text/event-stream"):
                async with http.stream(
                    "GET", "/v1/events", headers={**headers, "Accept": accept}
                ) as looked:
                    assert looked.status_code == status, headers
        # A link to the page may be followed; it cannot be put into a frame or a script.
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        for into, status in [("document", 200), ("iframe", 403), ("script", 403)]:
            answer = await http.get("/", headers={**link, "Sec-Fetch-Dest": into})
            assert answer.status_code == status
        for headers in (
            {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
        ):  # fmt: skip
            with pytest.raises(Refused) as refused:
                async with open_websocket(gateway.port, headers=headers):
                    pass
            assert refused.value.status == 403


async def test_a_wrong_key_shuts_nobody_else_at_its_address_out(stack: Stack) -> None:
    """One script with an old key, or a local user who guesses, is not the whole host."""
    good = await stack.key()
    async with stack.http() as http:
        statuses = [
            (await http.get("/v1/sessions", headers=_bearer(f"wak_{number:08d}_{'A' * 43}")))
            .status_code
            for number in range(14)
        ]  # fmt: skip
        assert statuses[-1] == 429
        assert (await http.get("/v1/sessions", headers=_bearer("no key"))).status_code == 429
        assert (await http.get("/v1/sessions", headers=_bearer(good))).status_code == 200


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
