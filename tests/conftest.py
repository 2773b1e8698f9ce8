"""What all tests share: figures that are printed, and how many tests run at a time.

Keep it small: fixtures belong beside the tests that use them.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from figures import Measured, machine, table
from hypothesis import settings

#: Tests at a time for each core: most wait for processes and sockets more than they compute.
WORKERS_PER_CORE = 2
#: More than this many would wait for each other's disk and memory.
MOST_WORKERS = 8

# How long an example takes says how busy the machine is: timings belong to the benchmarks, and many
# examples to the campaigns of `tests/fuzz`.
settings.register_profile("default run", deadline=None, max_examples=50)
settings.load_profile("default run")

_FIGURE = "figure"
_MEASURED = "measured"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--short", action="store_true", help="endurance tests take minutes instead of hours"
    )
    parser.addoption("--figures", metavar="FILE", help="write measured figures there, as JSON")


def pytest_configure() -> None:
    # A shell without job control starts what it puts into the background with Ctrl-C ignored, and
    # so would be what the tests start, which is to end by it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Whoever ends a run (a time limit, a closed terminal) leaves no daemons behind: as by Ctrl-C,
    # the tests end what they started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


@pytest.fixture
def is_short(request: pytest.FixtureRequest) -> bool:
    """Whether an endurance test is to take its short form."""
    return bool(request.config.getoption("--short"))


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Say a figure and its reference, as `Measured` takes them: a table of all ends the run."""

    def say(what: str, value: float, unit: str, **more: Any) -> None:
        one = Measured(what, value, unit, **more)
        request.node.user_properties.append((_MEASURED, one.__dict__))

    return say


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a measured figure: all of them stand together at the end of the run."""

    def say(text: str) -> None:
        request.node.user_properties.append((_FIGURE, text))

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    said = _said(terminalreporter, _FIGURE)
    if said:
        terminalreporter.section("figures")
    for place, text in said:
        terminalreporter.write_line(f"{place.rpartition('::')[2]}: {text}")
    figures = [
        (Path(place.partition("::")[0]).stem.removeprefix("test_").removeprefix("bench_"), figure)
        for place, values in _said(terminalreporter, _MEASURED)
        for figure in [Measured(**values)]
    ]
    for part, group in groupby(figures, key=lambda each: each[0]):
        terminalreporter.section(part)
        for line in table(figure for _, figure in group):
            terminalreporter.write_line(line)
    if where := terminalreporter.config.getoption("--figures"):
        content = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "figures": [{"part": part, **figure.as_json()} for part, figure in figures],
        }
        Path(where).write_text(json.dumps(content, indent=1) + "\n")


def _said(terminalreporter: pytest.TerminalReporter, name: str) -> list[tuple[str, Any]]:
    """What tests said under `name`, with their ids, in the order of their running."""
    return [
        (report.nodeid, value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
        for said, value in report.user_properties
        if said == name
    ]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests side by side; what measures alone, because it would measure its neighbours."""
    if config.option.markexpr.startswith(("bench", "endurance")):
        return 0
    return min(MOST_WORKERS, WORKERS_PER_CORE * len(os.sched_getaffinity(0)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal the files to the workers like cards, those that wait longest first.

    xdist gives each worker a run of the list. As it is collected, one of them had all tests that
    start daemons, and the last minute of a run waited for that one. Files stay whole: their
    fixtures are made once.
    """
    if (mine := getattr(config, "workerinput", None)) is None:
        return
    hands = mine["workercount"]
    files = [(path, list(group)) for path, group in groupby(items, key=lambda item: item.path)]
    files.sort(key=lambda file: "unit" in file[0].parts)  # stable: the rest of the order stays
    items[:] = [item for hand in range(hands) for _, group in files[hand::hands] for item in group]
