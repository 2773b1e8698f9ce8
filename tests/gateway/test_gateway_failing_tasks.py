"""Each supervised task of the gateway fails once: it serves and delivers on, and says so."""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio
from daemons import PATIENCE
from faults import Faults
from gateways import Gateway, Stack
from prometheus_client.parser import text_string_to_metric_families

ERRORS = {"link": "OSError", "deliverer": "KeyError", "http": "RuntimeError", "reload": "OSError"}


async def test_each_task_may_fail_and_is_back(stack: Stack) -> None:
    with tempfile.TemporaryDirectory(prefix="wg-") as name:
        gateway = Gateway(Path(name), stack.daemon.socket)
        faults = Faults(Path(name), gateway.environment, command="gateway")
        await gateway.start()
        try:
            own = Stack(stack.daemon, gateway)
            async with own.http(await own.key()) as http:
                assert {task for task, _ in faults.running()} == set(ERRORS)
                for task, error in ERRORS.items():
                    faults.put(task, "", error, "put in by a test")
                    with trio.fail_after(PATIENCE):
                        while faults.waiting() or (task, "") not in faults.running():
                            await trio.sleep(0.02)
                    with trio.fail_after(PATIENCE):
                        while (await http.get("/v1/sessions")).status_code != 200:
                            await trio.sleep(0.02)
                report = (await http.get("/v1/health")).json()
                [check] = [each for each in report["checks"] if each["name"] == "gateway_tasks"]
                assert not check["ok"]
                assert not report["healthy"]
                assert all(f"{task} failed 1 times" in check["detail"] for task in ERRORS)
                text = (await http.get("/v1/metrics")).text
            [family] = [
                family
                for family in text_string_to_metric_families(text)
                if family.name == "whatsappd_gateway_task_failures"
            ]
            counts = {sample.labels["task"]: sample.value for sample in family.samples}
            assert counts == dict.fromkeys(ERRORS, 1.0)
            assert "whatsappd_sessions" in text
        finally:
            print(gateway.log()[-4000:])
            assert await gateway.stop() == 0
