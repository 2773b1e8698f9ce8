"""When Python's garbage collector runs: not while a process starts, and later on less often."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """For imports: hundreds of modules make no garbage, and a tenth of their time went into looking
    for it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def settle() -> None:
    """Keep the garbage collector from objects as old as the process, and run it less often.

    By default it runs after every 700 allocations, which takes up to a third of the time of a
    daemon with a thousand connections.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)
