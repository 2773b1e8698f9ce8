"""`python -m tests.bench [PART…]`: the figures, each beside its reference from the same run.

Run it from the root of the repository, on a machine that does nothing else: benchmarks run alone,
one after another. The parts are the files of this directory and the endurance tests elsewhere;
pytest does the work, and `pytest -m 'bench or endurance'` runs the same.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent
#: What has a verdict beside its figures, and stands with the tests of what it is about.
ELSEWHERE = {
    "chaos": TESTS / "e2e" / "test_delivery_chaos.py",
    "fuzz": TESTS / "fuzz" / "test_fuzz.py",
}
_PREFIX = "test_bench_"


def parts() -> dict[str, Path]:
    here = {file.stem.removeprefix(_PREFIX): file for file in sorted(HERE.glob(f"{_PREFIX}*.py"))}
    return {**here, **ELSEWHERE}


def summary(file: Path) -> str:
    """The first line of a part's docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    return docstring.partition("\n")[0]


def main() -> int:
    known = parts()
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=(__doc__ or "").partition("\n")[0],
        epilog="parts:\n" + "\n".join(f"  {name:<10} {summary(at)}" for name, at in known.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="*", help="what to run; without any, all of it")
    parser.add_argument("--short", action="store_true", help="the long runs in their short form")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.part if name not in known]:
        parser.error(f"part: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    arguments = ["-m", "bench or endurance", "-n", "0", "-q", "--no-header"]
    if chosen.short:
        arguments.append("--short")
    if chosen.json:
        arguments += ["--figures", str(Path(chosen.json).absolute())]
    return pytest.main([*arguments, *(str(known[name]) for name in chosen.part or known)])


if __name__ == "__main__":
    sys.exit(main())
