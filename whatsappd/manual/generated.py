"""What the guides show that is written from the code, so that it cannot drift from it.

A table stands between `<!-- generated:NAME -->` and `<!-- end -->`. After a change of what it
shows, `python -m whatsappd.manual renew` writes it anew; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from whatsappd.api.reference import reference
from whatsappd.config.reference import table as settings_table
from whatsappd.errors import all_errors
from whatsappd.monitoring.metrics import ALL_METRICS
from whatsappd.rules.bounds import BOUNDS

_MARKED = re.compile(r"(<!-- generated:(\w+) -->\n\n).*?(\n<!-- end -->)", re.DOTALL)


def renewed(text: str) -> str:
    """A guide with each of its generated tables as it must be.

    Raises:
        KeyError: a mark names a table that there is not.
    """
    return _MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def errors() -> str:
    rows = [
        (
            f"`{error.name}`", error.code, error.exit_code, error.http_status,
            f"{error.meaning()} *{error.remedy}*",
        )
        for error in all_errors()
    ]  # fmt: skip
    return _table(("name", "code", "exit code", "HTTP", "meaning"), rows)


def bounds() -> str:
    rows = [
        (f"`{each.name}`", each.what, *(_amount(n) for n in (each.each, each.all, each.kept)))
        for each in BOUNDS
    ]
    return _table(("name", "what is counted", "each", "all", "kept"), rows)


def _amount(number: int) -> str:
    mib = number / (1 << 20)
    return f"{number:,}" if mib < 1 else f"{mib:g} MiB" if mib < 1024 else f"{mib / 1024:g} GiB"


def metrics() -> str:
    rows = [
        (f"`{metric.name}`", ", ".join(metric.labels), f"{metric.help} ({metric.type})")
        for metric in ALL_METRICS
    ]
    return _table(("metric", "labels", "meaning"), rows)


#: The names of the marks.
TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "methods": reference,
    "errors": errors,
    "bounds": bounds,
    "metrics": metrics,
}


def _table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [_row(titles), "|" + "---|" * len(titles), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
