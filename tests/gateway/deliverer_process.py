"""The gateway's deliverer as a process of its own, with short waits: `deliverer_process.py SOCKET`.

For tests that kill it in the middle of retries, which take minutes by the gateway's own policy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from whatsappd.gateway.webhooks.deliverer import run_deliverer
from whatsappd.rules.webhook_policy import Policy

POLICY = Policy(timeout_ms=300, attempts=10_000, base_ms=5, cap_ms=40, pause_after_ms=1500)

if __name__ == "__main__":
    trio.run(run_deliverer, Path(sys.argv[1]), POLICY)
