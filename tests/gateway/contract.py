"""The gateway tried against its own OpenAPI document, by schemathesis: a program of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import trio
from gateways import Stack

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,unsupported_method"
)
#: What neither the gateway nor its daemon may have to say of any request.
_DEFECTS = ("request_failed", "rpc_handler_failed")


class Tried(NamedTuple):
    """`findings`: what is not as the document says, and defects that a log tells of."""

    cases: int
    seconds: float
    findings: list[Any]


async def tried(stack: Stack, directory: Path, *arguments: str) -> Tried:
    """Run it; `arguments` say how much. Its files go into `directory`."""
    # Waiting for WhatsApp is not what is tried here.
    (directory / "schemathesis.toml").write_text('[parameters]\n"query.timeout" = 0\n')
    report = directory / "report.json"
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file"),
        *(str(directory / "schemathesis.toml"), "run", f"{stack.gateway.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {await stack.key()}"),
        *("--checks", CHECKS, "--report-json-path", str(report), "--no-color"),
        *("--request-timeout", "20", "--exclude-path", "/v1/events", *arguments),
    ]
    began = time.monotonic()
    with trio.fail_after(600):
        done = await trio.run_process(
            command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, cwd=directory
        )
    said = done.stdout.decode()
    assert report.exists(), said[-6000:]
    told = json.loads(report.read_text())
    findings = [*told["failures"], *told["errors"]]
    logs = stack.gateway.log() + stack.daemon.log()
    findings += [line for line in logs.splitlines() if any(word in line for word in _DEFECTS)]
    if done.returncode != 0:
        findings.append(said[-6000:])
    return Tried(told["test_cases"]["generated"], time.monotonic() - began, findings)
