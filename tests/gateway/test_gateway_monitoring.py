"""Health and metrics through the gateway."""

from __future__ import annotations

from gateways import Stack
from prometheus_client.parser import text_string_to_metric_families


async def test_metrics_are_served_compressed_and_plain(stack: Stack) -> None:
    async with stack.http(await stack.key()) as http:
        for encoding, expected in [("gzip", "gzip"), ("identity", None)]:
            answer = await http.get("/v1/metrics", headers={"Accept-Encoding": encoding})
            assert answer.status_code == 200
            assert answer.headers.get("content-encoding") == expected
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            names = {family.name for family in text_string_to_metric_families(answer.text)}
            assert "whatsappd_sessions" in names


async def test_health_is_the_daemons(stack: Stack) -> None:
    async with stack.http(await stack.key()) as http:
        report = (await http.get("/v1/health")).json()
    assert {check["name"] for check in report["checks"]} >= {"store", "disk"}
    assert all(check["ok"] or check["remedy"] for check in report["checks"])
