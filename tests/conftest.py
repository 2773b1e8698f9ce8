"""What all tests share: figures that are printed, and how many tests run at a time.

Keep it small: fixtures belong beside the tests that use them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

#: Most tests wait for processes and sockets more than they compute; more than this many at a time
#: would compete for the cores of a small machine and run into their deadlines.
MOST_WORKERS = 4

_FIGURE = "figure"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a measured figure: all of them stand together at the end of the run."""

    def say(text: str) -> None:
        request.node.user_properties.append((_FIGURE, text))

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = [
        (report.nodeid, text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
        for name, text in report.user_properties
        if name == _FIGURE
    ]
    if figures:
        terminalreporter.section("figures")
    for place, text in figures:
        terminalreporter.write_line(f"{place.rpartition('::')[2]}: {text}")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests side by side; benchmarks alone, because they would measure each other."""
    if config.option.markexpr == "bench":
        return 0
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) + 1)
