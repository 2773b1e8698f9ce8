"""Trying a target for a while, and gathering what got past it: chance, and guided by coverage.

`test_fuzz` uses it. Run as a program (`campaign.py MODULE TARGET SECONDS DIRECTORY`), it is the
process of one guided search: libFuzzer, which atheris is, ends its process.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from targets import Target

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
#: What one input may take before it counts as a hang, in seconds, and what the process may hold.
LONGEST = 10
MOST_MB = 2048
#: Inputs of one round of chance; the clock is looked at in between.
ROUND = 200

_UNCAUGHT = re.compile(r"Uncaught Python exception: ===\n(.*)")
_UNITS = re.compile(rb"stat::number_of_executed_units: (\d+)")


class Finding(NamedTuple):
    """Something that a target let pass: by what error and where, and an input that does it."""

    what: str
    where: str
    value: str


class Outcome(NamedTuple):
    cases: int
    seconds: float
    findings: list[Finding]


def by_chance(target: Target, seconds: float) -> Outcome:
    """Inputs by hypothesis, of another seed each round. All distinct findings, not only one."""
    began = time.monotonic()
    found: dict[tuple[str, str], Finding] = {}
    cases = rounds = 0

    def check(value: Any) -> None:
        nonlocal cases
        cases += 1
        started = time.monotonic()
        try:
            target.check(value)
        except Exception as error:
            finding = _finding(error, value)
            found.setdefault((type(error).__name__, finding.where), finding)
        if (took := time.monotonic() - started) > LONGEST:
            slow = Finding(f"took {took:.0f} s", target.name, repr(value)[:300])
            found.setdefault(slow[:2], slow)

    with _quiet():
        while time.monotonic() - began < seconds:
            rounds += 1
            seed(rounds)(
                settings(
                    max_examples=ROUND,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )(given(target.inputs)(check))
            )()
    return Outcome(cases, time.monotonic() - began, list(found.values()))


def guided(target: Target, seconds: float, directory: Path) -> Outcome:
    """Bytes by libFuzzer, led by the code that they reach; ends with the first finding."""
    began = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, __file__, target.check.__module__, target.name),
            *(str(round(seconds)), str(directory)),
        ],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=seconds + 120,
    )
    units = _UNITS.search(done.stderr)
    findings = []
    if done.returncode != 0:
        # An exception is told on stdout, a hang and a lack of memory on stderr.
        said = (done.stderr + done.stdout).decode(errors="replace")
        last = [line for line in said.splitlines() if line.strip()][-40:]
        inputs = [file.read_bytes()[:300] for file in directory.glob("found-*")]
        error = _UNCAUGHT.search(said)
        what = error[1] if error else f"libFuzzer ended with {done.returncode}"
        findings.append(Finding(what, "\n".join(last), repr(inputs)))
    return Outcome(int(units[1]) if units else 0, time.monotonic() - began, findings)


@contextlib.contextmanager
def _quiet() -> Any:
    """Thousands of complaints about wrong inputs are no news here."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _finding(error: Exception, value: object) -> Finding:
    where = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in where if "whatsapp" in frame.filename] or where
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} in {ours[-1].name}"
    return Finding(f"{type(error).__name__}: {error!s:.200}".partition("\n")[0][:60], place,
                   ascii(value)[:300])  # fmt: skip


def _search(module: str, name: str, seconds: str, directory: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["whatsappd", "whatsappctl"]):
        targets = importlib.import_module(module).TARGETS
    [target] = [each for each in targets if each.name == name]
    corpus = directory / "corpus"
    corpus.mkdir()
    for number, each in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(each)
    logging.disable(logging.CRITICAL)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={seconds}",
            f"-timeout={LONGEST}",
            f"-rss_limit_mb={MOST_MB}",
            f"-artifact_prefix={directory}/found-",
            *("-max_len=8192", "-print_final_stats=1", "-verbosity=0"),
        ],
        target.check,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    _search(*sys.argv[1:4], Path(sys.argv[4]))
