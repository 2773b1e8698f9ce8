"""Runs `whatsappctl` many times from one process, each with streams of its own; for a test.

`python forked_commands.py TASKS RESULTS`: TASKS is a JSON list of {arguments, streams}, with one of
STATES for each of the three streams; RESULTS gets a list of {code, stdout, stderr}.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import whatsappctl
from whatsappctl.cli import main

STATES = ("open", "closed", "full", "gone")
#: Seconds for one command, whose alarm then ends it.
PATIENCE = 30


def run(arguments: list[str], streams: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            become(arguments, streams, [-1, out.fileno(), err.fileno()])
        _, status = os.waitpid(child, 0)
        printed = []
        for file in (out, err):
            file.seek(0)
            printed.append(file.read().decode())
        code = os.waitstatus_to_exitcode(status)
        return {"code": code, "stdout": printed[0], "stderr": printed[1]}


def become(arguments: list[str], streams: list[str], files: list[int]) -> NoReturn:
    signal.alarm(PATIENCE)
    sys.argv = ["whatsappctl", *arguments]
    for descriptor, (state, file) in enumerate(zip(streams, files, strict=True)):
        match state:
            case "open":
                os.dup2(file if file >= 0 else os.open(os.devnull, os.O_RDONLY), descriptor)
            case "closed":
                os.close(descriptor)
            case "full":
                os.dup2(os.open("/dev/full", os.O_RDWR), descriptor)
            case "gone":
                reading, writing = os.pipe()
                mine, other = (reading, writing) if descriptor == 0 else (writing, reading)
                os.dup2(mine, descriptor)
                os.close(mine)
                os.close(other)
    main()


if __name__ == "__main__":
    # Before the fork, so that it need not be done after each.
    for module in pkgutil.walk_packages(whatsappctl.__path__, "whatsappctl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    tasks = json.loads(Path(sys.argv[1]).read_text())
    results = [run(task["arguments"], task["streams"]) for task in tasks]
    Path(sys.argv[2]).write_text(json.dumps(results))
