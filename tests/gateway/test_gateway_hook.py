"""Another way to say who one is: the guide's example, in front of the real routes and daemon."""

from __future__ import annotations

from typing import Any

import httpx
import trio
from documents import block
from gateways import Stack

from whatsappd.gateway.app import Application
from whatsappd.gateway.daemon_link import DaemonLink
from whatsappd.gateway.settings import Exposure


def example() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(block("test:authenticator"), names)
    return names


async def test_the_guides_scheme_lets_in_is_held_to_its_scope_and_is_audited(
    stack: Stack, nursery: trio.Nursery
) -> None:
    async with stack.daemon.client() as client:
        await client.call("session.start", company="hooked")
        await client.call("session.stop", company="hooked")
    link = DaemonLink(stack.daemon.socket)
    nursery.start_soon(link.run)
    behind_proxy = Exposure(behind_proxy=True)
    app = Application(link, example()["ByHeaderOrKey"](link), behind_proxy)
    path = "/v1/sessions/hooked/messages"
    body = {"to": "+15550200", "text": "Hello"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://proxy"
    ) as http:
        assert (await http.post(path, json=body)).status_code == 401
        ann = {"X-Signed-In-As": "ann"}
        assert (await http.post(path, json=body, headers=ann)).status_code == 202
        assert (await http.delete("/v1/sessions/hooked", headers=ann)).status_code == 403
        key = {"Authorization": f"Bearer {await stack.key('read')}"}
        assert (await http.get(path, headers=key)).status_code == 200
    async with stack.daemon.client() as client:
        with trio.fail_after(10):  # lines are written a moment later
            while True:
                lines = (await client.call("daemon.audit", company="hooked"))["lines"]
                if "sso:ann" in {line["actor"] for line in lines}:
                    break
                await trio.sleep(0.05)
