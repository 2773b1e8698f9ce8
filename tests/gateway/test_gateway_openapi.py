"""The OpenAPI document, and the gateway tried against it; at length by `tests.bench fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract import tried
from gateways import Stack

from whatsappd.gateway.admission import MAX_BODY
from whatsappd.model.message import OutboxState
from whatsappd.model.session import SessionState


async def test_the_states_that_are_documented_are_those_that_there_are(stack: Stack) -> None:
    async with stack.http() as http:
        schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    assert set(schemas["SessionState"]["enum"]) == {str(state) for state in SessionState}
    assert set(schemas["OutboxState"]["enum"]) == {str(state) for state in OutboxState}
    [text, _null] = schemas["MessageToSend"]["properties"]["text"]["anyOf"]
    assert 12 * text["maxLength"] < MAX_BODY


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


@pytest.mark.endurance
async def test_schemathesis_finds_nothing_that_is_not_documented(
    stack: Stack, tmp_path: Path
) -> None:
    arguments = ("--phases", "examples,coverage", "--max-examples", "3")
    found = await tried(stack, tmp_path, "--generation-deterministic", *arguments)
    assert found.findings == []
    assert found.cases > 500


async def test_a_line_feed_is_no_part_of_a_cursor(stack: Stack) -> None:
    async with stack.http(await stack.key()) as http:
        answer = await http.get("/v1/sessions/acme/messages?cursor=019ab0c4%0A")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cursor")
