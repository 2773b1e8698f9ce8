"""Measured figures: what a benchmark says, the table that people read, and the JSON for programs.

A figure stands beside its reference, which was measured in the same run on the same machine: cores
are shared and differ, so that the ratio tells more than the absolute value.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

_HEADINGS = ("what", "measured", "beside", "ratio", "aim")


@dataclass(frozen=True)
class Measured:
    """One figure.

    Attributes:
        what: the quantity, and under which conditions.
        unit: as it is printed behind the value: `/s`, `ms`, `MB`, …
        beside: what the reference is, with its value in the same unit.
        aim: in words; what was wanted, whether it was reached or not.
    """

    what: str
    value: float
    unit: str
    beside: str | None = None
    reference: float | None = None
    aim: str | None = None

    @property
    def ratio(self) -> float | None:
        """The figure as a multiple of its reference."""
        return None if not self.reference else self.value / self.reference

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}

    def cells(self) -> tuple[str, ...]:
        reference = ""
        if self.beside is not None:
            assert self.reference is not None
            reference = f"{_number(self.reference)} {self.unit} {self.beside}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return (self.what, f"{_number(self.value)} {self.unit}", reference, ratio, self.aim or "")


def table(figures: Iterable[Measured]) -> list[str]:
    """Lines of a Markdown table, which a terminal shows as well; without columns that are empty."""
    rows = [_HEADINGS, *(figure.cells() for figure in figures)]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in zip(*columns, strict=True)
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def machine() -> dict[str, Any]:
    """What the figures were taken on; nothing that names the host."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("whatsappd", "neonize", "trio", "msgpack")},
        "load_average": os.getloadavg()[0],
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    }


def _number(value: float) -> str:
    """Three digits that count, and no more than a reader can use."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()
