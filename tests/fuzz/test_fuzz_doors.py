"""Hostile ids and values at every door of a running daemon.

Nothing is made outside its state directory, and nobody meets a defect: every refusal names what is
wrong. `daemon.backup` is left out of what is tried with chance values: all of the database comes
before its answer, and it has one argument.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hostile
import httpx
import msgspec
import trio
from click.testing import CliRunner
from daemons import Daemon, running_daemon
from gateways import running_gateway
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from wire_targets import structs

from whatsappctl.cli import cli
from whatsappd.errors import EXIT_USAGE, WhatsappdError
from whatsappd.rpc.client import RpcClient

VALID = re.compile(r"[A-Za-z0-9_-]{1,50}\Z", re.ASCII)
HOSTILE = tuple(each for each in hostile.IDS if not VALID.match(each))


def made(daemon: Daemon) -> set[str]:
    """What lies around the daemon's state directory, and which directories companies have."""
    around = {
        str(path.relative_to(daemon.directory))
        for path in daemon.directory.rglob("*")
        if daemon.state_dir not in path.parents
    }
    companies = daemon.state_dir / "companies"
    return around | {f"companies/{path.relative_to(companies)}" for path in companies.rglob("*")}


async def refused(client: RpcClient, method: str, **arguments: Any) -> None:
    """That the call is refused as wrong, by the name of the parameter."""
    try:
        result = await client.call(method, **arguments)
    except WhatsappdError as error:
        assert error.name == "invalid_params", (method, arguments, error)
        assert error.message.startswith(error.data["field"])
        assert error.data["field"] in ("company", "companies")
    else:
        raise AssertionError(f"{method} took {arguments!r:.200}: {result!r:.200}")


async def test_no_id_leads_anywhere_but_into_the_state_directory(tmp_path: Path) -> None:
    async with running_daemon("--sandbox") as daemon, running_gateway(daemon) as gateway:
        before = made(daemon)
        async with daemon.client() as client:
            for company in HOSTILE:
                for method in ("start", "stop", "restart", "logout", "status", "qr", "remove"):
                    await refused(client, f"session.{method}", company=company)
                await refused(client, "session.configure", company=company, per_minute=1)
                await refused(client, "message.send", company=company, to="+15550100", text="x")
                for method in ("message.list", "daemon.audit"):
                    await refused(client, method, company=company)
                for method in ("events.subscribe", "events.read"):
                    await refused(client, method, companies=[company])
                await refused(client, "key.create", name="x", scope="read", companies=[company])
                url = "https://h.example/"
                await refused(client, "webhook.create", url=url, companies=[company])
            key = (await client.call("key.create", name="x", scope="admin"))["key"]
        async with httpx.AsyncClient(
            base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, timeout=30
        ) as http:
            for company in HOSTILE[::3]:
                await _try_rest(http, company)
        await trio.to_thread.run_sync(_try_commands, daemon, tmp_path)
        assert made(daemon) - before <= {"gateway.log"}
        for log in (daemon.log(), gateway.log()):
            assert "rpc_handler_failed" not in log
            assert "request_failed" not in log


async def _try_rest(http: httpx.AsyncClient, company: str) -> None:
    # httpx resolves dots in a path by itself: the last is what a hand-written client sends.
    if len(company) > 10_000:
        company = company[:10_000]
    for method, path in (("PUT", ""), ("GET", ""), ("DELETE", ""), ("GET", "/qr")):
        answer = await http.request(method, f"/v1/sessions/{quote(company, safe='')}{path}")
        if company in ("", ".", "..") or "/" in company:
            assert answer.status_code < 500
        else:
            assert 400 <= answer.status_code < 500, (method, company, answer.text)


def _try_commands(daemon: Daemon, directory: Path) -> None:
    batch = directory / "batch.ndjson"
    # A command takes a hundred times what a call does: every ninth will do.
    for company in [each for each in HOSTILE if "\0" not in each][::9]:
        for command in (["start", "--no-wait"], ["stop"], ["status"], ["remove", "--yes"]):
            if not company and command == ["status"]:
                continue  # an argument that is empty is none
            result = CliRunner().invoke(
                cli, ["--socket", str(daemon.socket), *command, "--", company]
            )
            assert result.exit_code == EXIT_USAGE, (command, company, result.output)
            assert result.stderr
    lines = [{"company": company, "to": "+15550100", "text": "x"} for company in HOSTILE]
    batch.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = CliRunner().invoke(
        cli, ["--socket", str(daemon.socket), "send", "--batch", str(batch)]
    )
    assert result.exit_code == EXIT_USAGE
    assert result.stderr.count("company: ") == len(HOSTILE)


#: Right values, which stand beside those of chance.
RIGHT = {"company": "acme", "to": "+15550100", "text": "x", "id": "0" * 16, "consumer": "c"}


async def test_no_value_brings_out_a_defect() -> None:
    fields = [field for struct in structs() for field in msgspec.structs.fields(struct)]
    names = sorted({field.encode_name for field in fields})
    async with running_daemon("--sandbox") as daemon, daemon.client() as client:
        await client.call("session.start", company="acme")
        hello = await client.call("daemon.hello")
        methods = [name for name in hello["methods"] if name != "daemon.backup"]
        accepted = await _accepted(client, methods)
        found: list[tuple[str, dict[str, Any]]] = []
        options = {
            "max_examples": 120,
            "derandomize": True,
            "database": None,
            "deadline": None,
            "phases": [Phase.generate],
            "suppress_health_check": list(HealthCheck),
        }
        chosen = st.sampled_from(methods).flatmap(
            lambda method: st.tuples(
                st.just(method),
                st.dictionaries(
                    st.sampled_from(accepted[method] or names), hostile.call_values, max_size=4
                ),
                st.sets(st.sampled_from(sorted(RIGHT))),
            )
        )

        @settings(**options)
        @given(chosen)
        def collect(call: tuple[str, dict[str, Any], set[str]]) -> None:
            method, chance, right = call
            known = {name: RIGHT[name] for name in right if name in accepted[method]}
            found.append((method, {**known, **chance}))

        collect()
        for method, arguments in found:
            with trio.move_on_after(0.2):  # some wait for what never comes: that is no defect
                try:
                    await client.call(method, **arguments)
                except WhatsappdError as error:
                    assert error.name != "internal", (method, arguments, error)
                    assert len(error.message) < 3000
        status = await client.call("daemon.status")
        assert status["pid"] == daemon.pid
        assert "rpc_handler_failed" not in daemon.log()
        assert "session_defect" not in daemon.log()
        assert "rpc_connection_failed" not in daemon.log()


async def _accepted(client: RpcClient, methods: list[str]) -> dict[str, list[str]]:
    """The parameters of each method, as it says itself when it is given another."""
    accepted = {}
    for method in methods:
        try:
            await client.call(method, **{"no such parameter": 1})
        except WhatsappdError as error:
            _, _, listed = error.message.partition("(accepted: ")
            names = listed.removesuffix(")").split(", ")
            accepted[method] = [] if names == ["no parameters at all"] else names
    return accepted
