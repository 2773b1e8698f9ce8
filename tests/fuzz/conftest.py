"""Servers, daemons and gateways for what is fuzzed alive come from where others test them."""

from __future__ import annotations

import sys
from pathlib import Path

for _room in ("rpc", "e2e", "gateway"):
    sys.path.insert(0, str(Path(__file__).parent.parent / _room))
