"""Errors put into a real daemon, for the tests that let its parts fail.

`install` gives a daemon (or a gateway) that is yet to be started a `sitecustomize`, which makes it
listen on a socket of the test's. What it is told there ends one run of one supervised task with an
error, as if the task had raised it; or it tells what its tasks are.
"""

from __future__ import annotations

import builtins
import json
import os
import socket
from pathlib import Path
from typing import Any

_PLACE = "WHATSAPPD_TEST_FAULTS"
_FIRST = "WHATSAPPD_TEST_FIRST_FAULTS"
_SITE = """
import sys
if "whatsappd" in sys.orig_argv and {command!r} in sys.orig_argv:
    import faults
    faults.arm()
"""

#: (task, company or "", class of the error, its words)
Fault = tuple[str, str, str, str]


class Faults:
    """The test's end."""

    def __init__(self, directory: Path, environment: dict[str, str], *, command: str) -> None:
        self._directory = directory
        self._environment = environment
        (directory / "sitecustomize.py").write_text(_SITE.format(command=command))
        environment["PYTHONPATH"] = os.pathsep.join([str(directory), str(Path(__file__).parent)])
        environment[_PLACE] = str(directory / "faults")

    def first(self, *faults: Fault) -> None:
        """Let these happen in the next process, as soon as it runs their tasks."""
        self._environment[_FIRST] = json.dumps(faults)

    def put(self, *fault: str) -> None:
        """Let one happen: now, or when its task is run next."""
        assert self._ask({"do": "put", "fault": fault}) == "put"

    def running(self) -> list[tuple[str, str]]:
        """The supervised tasks that run now, and their companies."""
        return [(name, company) for name, company in self._ask({"do": "running"})]

    def waiting(self) -> int:
        """How many of the faults have not happened yet."""
        return int(self._ask({"do": "waiting"}))

    def unsupervised(self) -> list[str]:
        """Tasks of the event loop that belong to no supervised one, but for the main task."""
        return list(self._ask({"do": "unsupervised"}))

    def _ask(self, request: dict[str, Any]) -> Any:
        own = self._directory / "asking"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            asking.bind(str(own))
            try:
                asking.settimeout(20)
                asking.sendto(json.dumps(request).encode(), self._environment[_PLACE])
                return json.loads(asking.recv(1 << 20))
            finally:
                own.unlink()


# --- in the daemon ------------------------------------------------------------------------------


def arm() -> None:
    import trio

    from whatsappd import errors, supervision

    place = os.environ.pop(_PLACE)
    waiting: list[Fault] = [tuple(fault) for fault in json.loads(os.environ.pop(_FIRST, "[]"))]
    running: dict[tuple[str, str], list[trio.CancelScope]] = {}
    plain_once, plain_run = supervision.Supervision._run, trio.run

    async def once(self: Any, found: Any, task: Any) -> None:
        key = (found.name, found.company or "")
        raise_what_waits(key)
        with trio.CancelScope() as scope:
            running.setdefault(key, []).append(scope)
            try:
                await plain_once(self, found, task)
            finally:
                running[key].remove(scope)
        if scope.cancel_called:
            raise_what_waits(key)

    def raise_what_waits(key: tuple[str, str]) -> None:
        for fault in waiting:
            if fault[:2] == key:
                waiting.remove(fault)
                error = getattr(errors, fault[2], None) or getattr(builtins, fault[2])
                raise error(fault[3])

    def answer(request: dict[str, Any]) -> Any:
        if request["do"] == "put":
            fault = tuple(request["fault"])
            waiting.append(fault)
            for scope in running.get(fault[:2], []):
                scope.cancel()
            return "put"
        if request["do"] == "running":
            return [key for key, scopes in running.items() if scopes]
        if request["do"] == "waiting":
            return len(waiting)
        return unsupervised()

    def unsupervised() -> list[str]:
        found = []
        todo = [main[0]]
        while todo:
            task = todo.pop()
            for nursery in task.child_nurseries:
                for child in nursery.child_tasks:
                    todo.append(child)
                    if child.context.get(supervision.within) is None:
                        found.append(child.name)
        return found

    async def serve() -> None:
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            Path(place).unlink(missing_ok=True)
            await listening.bind(place)
            while True:
                request, asker = await listening.recvfrom(1 << 16)
                await listening.sendto(json.dumps(answer(json.loads(request))).encode(), asker)

    main: list[Any] = []

    def run(function: Any, *arguments: Any, **options: Any) -> Any:
        async def with_faults(*given: Any) -> Any:
            main.append(trio.lowlevel.current_task())
            trio.lowlevel.spawn_system_task(serve)
            return await function(*given)

        return plain_run(with_faults, *arguments, **options)

    trio.run = run  # type: ignore[assignment]
    supervision.Supervision._run = once  # type: ignore[method-assign]
