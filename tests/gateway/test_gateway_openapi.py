"""The OpenAPI document, and the gateway tried against it by schemathesis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import trio
from gateways import Stack

from whatsappd.gateway import models
from whatsappd.gateway.door import MAX_BODY
from whatsappd.gateway.models import OutboxStateName, SessionStateName
from whatsappd.model.message import OutboxState
from whatsappd.model.session import SessionState

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,unsupported_method"
)


def test_the_states_that_are_documented_are_those_that_there_are() -> None:
    assert set(get_args(SessionStateName)) == {str(state) for state in SessionState}
    assert set(get_args(OutboxStateName)) == {str(state) for state in OutboxState}
    assert 12 * models.SendMessage.model_json_schema()["properties"]["text"]["maxLength"] < MAX_BODY


async def test_every_operation_is_described_with_examples_and_problems(stack: Stack) -> None:
    async with stack.http() as http:
        document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], (method, path)
            if not path.startswith("/v1/"):
                continue
            assert operation["security"] == [{"apiKey": []}]
            for status in ("401", "403", "422", "503"):
                content = operation["responses"][status]["content"]
                assert list(content) == ["application/problem+json"]
            if "requestBody" in operation:
                [(_, body)] = operation["requestBody"]["content"].items()
                references = [body["schema"].get("$ref")] + [
                    each.get("$ref") for each in body["schema"].get("anyOf", ())
                ]
                [name] = [each.rpartition("/")[2] for each in references if each]
                assert document["components"]["schemas"][name]["examples"]


async def _tried(stack: Stack, directory: Path, *arguments: str) -> None:
    # Waiting for WhatsApp is not what is tried here.
    (directory / "schemathesis.toml").write_text('[parameters]\n"query.timeout" = 0\n')
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file"),
        *(str(directory / "schemathesis.toml"), "run", f"{stack.gateway.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {await stack.key()}"),
        *("--checks", CHECKS, "--generation-deterministic", "--no-color"),
        *("--request-timeout", "20", "--exclude-path", "/v1/events", *arguments),
    ]
    with trio.fail_after(600):
        done = await trio.run_process(
            command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, cwd=directory
        )
    report = done.stdout.decode()
    assert done.returncode == 0, report[-6000:]
    assert "request_failed" not in stack.gateway.log()
    assert "rpc_handler_failed" not in stack.daemon.log()


async def test_schemathesis_finds_nothing_that_is_not_documented(
    stack: Stack, tmp_path: Path
) -> None:
    await _tried(stack, tmp_path, "--phases", "examples,coverage", "--max-examples", "3")


@pytest.mark.soak
async def test_schemathesis_finds_nothing_in_many_cases(stack: Stack, tmp_path: Path) -> None:
    await _tried(stack, tmp_path, "--max-examples", "25")
