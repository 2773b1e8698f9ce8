"""What is fuzzed: each reader of something that others wrote, with what must hold for any input.

A target is written once. `test_fuzz_targets` tries each a few hundred times in the default run;
`test_fuzz`, the long form, for minutes, and where atheris is installed also guided by coverage
(`campaign`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from hypothesis import strategies as st

from whatsappd.errors import InvalidParams, WhatsappdError

#: A longer complaint repeats what it complains about, which may be a megabyte.
LONGEST_COMPLAINT = 2500


class Target(NamedTuple):
    """One thing to fuzz.

    Args:
        check: raises, with anything at all, if what must hold does not.
        seeds: for targets that take bytes: right ones, from which a guided search begins. With
            them the guided search gives bytes of its own making to `check`.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    seeds: tuple[bytes, ...] = ()


@contextmanager
def refusing(*kinds: type[WhatsappdError]) -> Iterator[None]:
    """What is inside may refuse its input with one of these errors, if it says enough."""
    try:
        yield
    except kinds as error:
        assert error.message, "a complaint must say something"
        assert len(error.message) <= LONGEST_COMPLAINT, f"{len(error.message)} characters"
        if isinstance(error, InvalidParams):
            field = error.data["field"]
            assert error.message.startswith(field), (field, error.message)


def pieces(data: bytes, size: int) -> list[bytes]:
    """`data` as a socket may bring it."""
    return [data[start : start + size] for start in range(0, len(data), size)]
