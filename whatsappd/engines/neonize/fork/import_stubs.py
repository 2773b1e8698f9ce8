"""Stands in for packages of neonize's that workers never use, so that importing it is cheaper.

They are for fetching media, link previews, stickers and QR codes on a terminal, and take half of
the time of the import and much of its memory. Called by `engines.neonize.fork.preload`. If a later
neonize needs one of them, the import fails, and workers import neonize with all its packages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

#: What neonize imports, and uses in functions only that are not called here.
UNUSED = ("PIL", "httpx", "linkpreview", "phonenumbers", "requests", "segno", "tqdm")


@contextmanager
def leaving_out_unused() -> Iterator[None]:
    """Modules imported meanwhile get stand-ins for UNUSED, and keep them; later ones do not."""
    stand_ins = {name: _StandIn(name) for name in UNUSED if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _nothing(f"{self.__name__}.{name}")


class _Nothing(type):
    """A class, because annotations may name it; whoever calls it, or what it holds, is told why
    that cannot be."""

    def __getattr__(cls, name: str) -> Any:
        return _nothing(f"{cls.__name__}.{name}")

    def __call__(cls, *_arguments: object, **_keywords: object) -> NoReturn:
        raise RuntimeError(f"{cls.__name__}() was called, and is left out of whatsappd's workers")


def _nothing(name: str) -> type:
    if name.rpartition(".")[2].startswith("__"):
        raise AttributeError(name)
    return _Nothing(name, (), {})
