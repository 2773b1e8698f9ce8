"""The page, in a real browser (headless Chromium) against a real gateway and daemon."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, running_daemon
from gateways import Gateway, Stack, running_gateway
from nginx import behind_socket, needs_nginx, running_nginx

from whatsappd.errors import WrongState
from whatsappd.manual.topics import TOPICS

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]

#: Where to leave screenshots, if somebody wants to look.
SCREENSHOTS = os.environ.get("WHATSAPPD_SCREENSHOTS")


class Browsing:
    """A page in a thread of its own; `ask` runs something in trio meanwhile."""

    def __init__(self, page: Any, stack: Stack) -> None:
        self.page = page
        self.stack = stack
        self.expect = playwright.expect

    def ask(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return trio.from_thread.run(work, *arguments)

    def rpc(self, method: str, **arguments: Any) -> Any:
        async def call() -> Any:
            async with self.stack.daemon.client() as client:
                return await client.call(method, **arguments)

        return self.ask(call)

    def sign_in(self, key: str) -> None:
        self.page.goto(self.stack.gateway.url)
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()

    def link(self, company: str, phone: str) -> None:
        """As somebody would: name it, look at the code, hold the phone to it."""
        self.page.get_by_label("New company").fill(company)
        self.page.get_by_role("button", name="Link", exact=True).click()
        self.expect(self.page.locator("#company-title")).to_have_text(company)
        code = self.page.get_by_alt_text("QR code to scan with the phone")
        self.expect(code).to_be_visible()
        self.page.wait_for_function("document.getElementById('qr').naturalWidth > 100")
        self.look(f"pairing-{company}")
        # Another code takes its place by itself.
        first = code.get_attribute("src")
        self.rpc("session.restart", company=company)
        self.expect(code).not_to_have_attribute("src", first)
        self.expect(code).to_be_visible()
        self.page.wait_for_function("document.getElementById('qr').naturalWidth > 100")
        self.ask(self._scan, company, phone)
        self.expect(self.page.locator("#state")).to_have_text("Connected")
        self.expect(code).to_be_hidden()
        self.expect(self.page.locator("#explanation")).to_have_text(f"It is connected as {phone}.")

    async def _scan(self, company: str, phone: str) -> None:
        """Hold the phone to the code that is shown now. The page may still show the one of before
        the restart, in a new image, when the session has none yet: so wait for one."""
        async with self.stack.daemon.client() as client:
            with trio.fail_after(PATIENCE):
                while True:
                    with suppress(WrongState):
                        shown = await client.call("session.qr", company=company)
                        break
                    await trio.sleep(0.05)
            await client.call("sandbox.scan", qr=shown["qr"], phone=phone)

    def look(self, name: str) -> None:
        """Screenshots in both themes, narrow and wide."""
        if SCREENSHOTS is None:
            return
        for theme in ("light", "dark"):
            self.page.emulate_media(color_scheme=theme)
            for width, height in ((1280, 800), (390, 760)):
                self.page.set_viewport_size({"width": width, "height": height})
                path = Path(SCREENSHOTS) / f"{name}-{theme}-{width}.png"
                self.page.screenshot(path=path, full_page=True)
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": 1100, "height": 800})


@contextmanager
def _opened(stack: Stack) -> Iterator[Browsing]:
    problems: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            # Root has no sandbox there; tests are often run as root in containers.
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        context = browser.new_context(viewport={"width": 1100, "height": 800})
        context.set_default_timeout(PATIENCE * 1000)
        playwright.expect.set_options(timeout=PATIENCE * 1000)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text)
                if "Content Security Policy" in line.text else None)  # fmt: skip
        hosts: set[str] = set()
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        try:
            yield Browsing(page, stack)
        except BaseException:
            print("problems:", problems)
            print(page.inner_text("body"))
            raise
        finally:
            browser.close()
    assert problems == []
    assert hosts - {""} <= {f"127.0.0.1:{stack.gateway.port}"}


async def browse(stack: Stack, script: Callable[[Browsing], None]) -> None:
    def run() -> None:
        with _opened(stack) as browsing:
            script(browsing)

    await trio.to_thread.run_sync(run)


async def test_link_a_company_send_receive_and_outlive_a_restart_of_the_gateway() -> None:
    async with running_daemon("--sandbox") as daemon, running_gateway(daemon) as gateway:
        stack = Stack(daemon, gateway)
        key = await stack.key("admin")

        def script(browsing: Browsing) -> None:
            page, expect = browsing.page, browsing.expect
            browsing.sign_in("wak_12345678_" + "x" * 43)
            expect(page.get_by_role("alert")).to_contain_text("unknown, or was revoked")
            browsing.look("wrong-key")
            browsing.sign_in(key)
            expect(page.locator("#live")).to_have_text("Live")
            expect(page.locator("#no-companies")).to_be_visible()
            browsing.link("acme", "+15550100")
            browsing.link("globex", "+15550200")

            page.get_by_role("button", name="acme").click()
            page.get_by_label("To (international").fill("+15550200")
            page.get_by_label("Text").fill("Hello from the page <b>&amp;</b>")
            page.get_by_role("button", name="Send").click()
            mine = page.locator("#messages .mine").first
            expect(mine).to_contain_text("Hello from the page <b>&amp;</b>")
            expect(mine).to_contain_text("delivered")
            page.get_by_role("button", name="globex").click()
            expect(page.locator("#messages .theirs").first).to_contain_text("Hello from the page")
            # And while one looks.
            browsing.rpc("message.send", company="acme", to="+15550200", text="Second")
            expect(page.locator("#messages .theirs").first).to_contain_text("Second")
            browsing.look("messages")

            browsing.ask(gateway.stop, signal.SIGKILL)
            expect(page.locator("#live")).to_have_text("Reconnecting…")
            browsing.rpc("message.send", company="acme", to="+15550200", text="Meanwhile")
            page.get_by_label("To (international").fill("+15550100")
            page.get_by_label("Text").fill("Kept")
            page.get_by_role("button", name="Send").click()
            expect(page.get_by_role("alert")).to_contain_text("gateway does not answer")
            browsing.look("gateway-away")
            same_place = f"127.0.0.1:{gateway.port}"
            gateway.command[gateway.command.index("--bind") + 1] = same_place
            browsing.ask(gateway.start)
            expect(page.locator("#live")).to_have_text("Live")
            expect(page.locator("#messages .theirs").first).to_contain_text("Meanwhile")
            # What was typed is still there: once more, and it goes.
            page.get_by_role("button", name="Send").click()
            expect(page.locator("#messages .mine").first).to_contain_text("Kept")
            expect(page.get_by_role("alert")).to_be_hidden()

            # A reload stays signed in, and at the company.
            page.reload()
            expect(page.locator("#company-title")).to_have_text("globex")
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_label("API key")).to_be_focused()
            page.reload()
            expect(page.get_by_label("API key")).to_be_visible()

        await browse(stack, script)


async def test_an_older_answer_never_replaces_a_newer_one(stack: Stack) -> None:
    made = await stack.make_key("admin")

    def script(browsing: Browsing) -> None:
        page, expect = browsing.page, browsing.expect
        browsing.sign_in(made["key"])
        expect(page.locator("#live")).to_have_text("Live")
        page.get_by_label("New company").fill("older")
        page.get_by_role("button", name="Link", exact=True).click()
        expect(page.get_by_alt_text("QR code to scan with the phone")).to_be_visible()
        asking: list[Any] = []

        def dawdle(route: Any) -> None:
            """The first answer is old when it comes."""
            answer = route.fetch()
            if not asking:
                asking.append(route)
                browsing.rpc("session.stop", company="older")
                page.wait_for_timeout(500)  # in which the page would ask again
            route.fulfill(response=answer)

        page.route("**/v1/sessions/older", dawdle)
        browsing.rpc("session.restart", company="older")
        expect(page.locator("#state")).to_have_text("Stopped")
        page.wait_for_timeout(500)
        expect(page.locator("#state")).to_have_text("Stopped")
        page.unroute("**/v1/sessions/older")
        browsing.rpc("session.remove", company="older")

    await browse(stack, script)


async def test_it_can_be_used_by_keyboard_and_tells_what_a_key_may_not_do(stack: Stack) -> None:
    async with stack.daemon.client() as client:
        await client.call("session.start", company="acme")
        await client.call("session.stop", company="acme")
        await client.call("session.start", company="globex")
        await client.call("session.stop", company="globex")
    made = await stack.make_key("read")

    def script(browsing: Browsing) -> None:
        page, expect = browsing.page, browsing.expect
        page.goto(stack.gateway.url)
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type(made["key"])
        page.keyboard.press("Enter")
        # Other tests may have companies of their own here; this one is the first by name.
        expect(page.locator("#companies button").first).to_contain_text("acme")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#company-title")).to_have_text("acme")
        expect(page.locator("#company-title")).to_be_focused()
        page.get_by_role("button", name="Start", exact=True).press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("scope “admin”")
        browsing.look("denied")
        # A revoked key is out, wherever one is.
        browsing.rpc("key.revoke", id=made["id"])
        expect(page.get_by_role("alert")).to_contain_text("revoked")
        expect(page.get_by_label("API key")).to_be_visible()

    await browse(stack, script)


async def test_without_keys_nobody_signs_in_and_long_names_fit_a_small_phone() -> None:
    async with (
        running_daemon("--sandbox") as daemon,
        running_gateway(daemon, "--no-auth") as gateway,
    ):

        def script(browsing: Browsing) -> None:
            page, expect = browsing.page, browsing.expect
            page.set_viewport_size({"width": 320, "height": 640})
            page.goto(gateway.url)
            expect(page.locator("#live")).to_have_text("Live")
            expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
            page.get_by_label("New company").fill("a" * 50)
            page.get_by_role("button", name="Link", exact=True).click()
            expect(page.get_by_alt_text("QR code to scan with the phone")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == 320

        await browse(Stack(daemon, gateway), script)


@needs_nginx
async def test_it_works_below_a_path_of_a_proxy(stack: Stack, tmp_path: Path) -> None:
    key = await stack.key()
    async with stack.http(key) as http:
        await http.put("/v1/sessions/below-a-path")
    with behind_socket(stack, tmp_path) as socket, running_nginx(tmp_path, socket) as nginx:
        proxy = Gateway(tmp_path, stack.daemon.socket)
        proxy.port = nginx.port

        def script(browsing: Browsing) -> None:
            page = browsing.page
            page.goto(f"{proxy.url}/wa/")
            browsing.look("sign-in-below")
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Sign in").click()
            browsing.expect(page.locator("#live")).to_have_text("Live")  # the WebSocket, too
            page.get_by_role("button", name="below-a-path").click()
            browsing.expect(page.locator("#company-title")).to_have_text("below-a-path")
            browsing.expect(page.get_by_alt_text("QR code to scan with the phone")).to_be_visible()
            browsing.look("company-below")
            page.get_by_role("link", name="API documentation").click()
            page.wait_for_url(f"{proxy.url}/wa/docs")
            browsing.expect(page.locator("h1")).to_contain_text("whatsappd")
            page.get_by_role("link", name="the guide").click()
            page.wait_for_url(f"{proxy.url}/wa/manual/gateway")
            browsing.expect(page.locator("h1")).to_contain_text("The gateway")
            page.get_by_role("navigation").get_by_role("link", name="webhooks").click()
            page.wait_for_url(f"{proxy.url}/wa/manual/webhooks")
            page.goto(f"{proxy.url}/wa/manual")
            page.wait_for_url(f"{proxy.url}/wa/manual/")
            style = "getComputedStyle(document.querySelector('article')).borderRadius"
            assert page.evaluate(style) == "12px"  # its own, from below the path

        await browse(Stack(stack.daemon, proxy), script)


async def test_the_pages_files_are_few_and_tightly_bound(stack: Stack) -> None:
    async with stack.http() as http:
        page = await http.get("/")
        assert page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "style=" not in page.text
        for name in ("page.css", "page.js", "api.js", "live.js", "icon.svg"):
            answer = await http.get(f"/page/{name}")
            assert answer.status_code == 200
            again = await http.get(
                f"/page/{name}", headers={"If-None-Match": answer.headers["etag"]}
            )
            assert again.status_code == 304
        for name in ("routes.py", "nothing.js", "%2e%2e%2fapp.py", "..%2fapp.py"):
            assert (await http.get(f"/page/{name}")).status_code in (400, 404)


@pytest.mark.endurance
async def test_every_guide_can_be_read_on_a_phone_and_leads_to_others(stack: Stack) -> None:
    def script(browsing: Browsing) -> None:
        page = browsing.page
        page.goto(f"{stack.gateway.url}/manual/")
        browsing.look("guides")
        names = page.locator("article dt a").all_inner_texts()
        assert names == list(TOPICS)
        for name in names:
            page.goto(f"{stack.gateway.url}/manual/{name}")
            browsing.look(f"guide-{name}")
            page.set_viewport_size({"width": 390, "height": 760})
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, f"{name} is {wide} wide: code and tables scroll by themselves"
            browsing.expect(page.locator("nav a[aria-current]")).to_have_text(name)
        # A link into the middle of another guide.
        page.goto(f"{stack.gateway.url}/manual/troubleshooting")
        page.get_by_role("link", name="Decide").click()
        page.wait_for_url("**/manual/sending#uncertain-messages")
        browsing.expect(page.locator("#uncertain-messages")).to_be_in_viewport()

    await browse(stack, script)


async def test_guides_need_no_key_and_run_nothing(stack: Stack) -> None:
    async with stack.http() as http:
        for name in ("", *TOPICS):
            page = await http.get(f"/manual/{name}")
            assert page.status_code == 200
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src" not in policy
            for forbidden in ("<script", "style=", "<!--"):
                assert forbidden not in page.text
            assert not re.search(r'href="[a-z]+\.md', page.text)
        for name in ("nothing", "sending.md", "%2e%2e%2fpage", "..%2ftopics.py", "sending/x"):
            assert (await http.get(f"/manual/{name}")).status_code in (400, 404)
