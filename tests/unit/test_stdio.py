"""The standard streams of a command, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

PROGRAM = """
import sys, time
from whatsappd import stdio
stdio.prepare(patience=0.2)
began = time.monotonic()
for number in range(1000):
    print("x" * 100, number, file=sys.stderr)
print(time.monotonic() - began < 20, flush=True)
sys.stdin.readline()
print("again", file=sys.stderr)
print("still here", flush=True)
"""
DEFECT = """
import click, sys
from whatsappd import command_runner, stdio
stdio.prepare()
@click.command()
def fail():
    raise RuntimeError("\\x1b[2J\\u202e what a stranger wrote")
sys.exit(command_runner.run(fail, "fail"))
"""


def test_a_reader_of_stderr_that_stops_is_not_waited_for_again_and_again():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 4096)
    os.set_blocking(writing, True)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writing,
    ) as process:
        os.close(writing)
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"True\n"
        os.set_blocking(reading, False)
        with suppress(BlockingIOError):
            while os.read(reading, 65536):
                pass
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.stdout.readline() == b"still here\n"
        assert os.read(reading, 65536) == b"again\n"
    os.close(reading)


def test_a_defect_is_shown_without_commanding_the_terminal():
    ended = subprocess.run(
        [sys.executable, "-c", DEFECT], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")
    assert ended.stderr.endswith("RuntimeError: \\x1b[2J\\u202e what a stranger wrote\n")
