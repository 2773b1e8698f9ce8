"""neonize's protobuf types without neonize, whose import starts processes and loads Go.

from neonize_protos import e2e, neonize
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def _load() -> tuple[Any, Any]:
    found = find_spec("neonize")
    assert found is not None
    known = sys.modules.get("neonize")
    package = ModuleType("neonize")
    package.__path__ = list(found.submodule_search_locations or ())
    sys.modules["neonize"] = known or package
    try:
        return (
            importlib.import_module("neonize.proto.waE2E.WAWebProtobufsE2E_pb2"),
            importlib.import_module("neonize.proto.Neonize_pb2"),
        )
    finally:
        if known is None:
            del sys.modules["neonize"]


e2e, neonize = _load()
