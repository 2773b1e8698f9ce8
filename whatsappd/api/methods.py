"""All methods that there are, by noun. Those of `sandbox` exist in sandbox mode only."""

from __future__ import annotations

from typing import Any

from whatsappd.api import daemon, events, keys, limits, messages, sandbox, sessions, webhooks
from whatsappd.api.declaration import Declaration

METHODS: tuple[Declaration[Any, Any], ...] = (
    *daemon.METHODS,
    *limits.METHODS,
    *sessions.METHODS,
    *messages.METHODS,
    *events.METHODS,
    *keys.METHODS,
    *webhooks.METHODS,
    *sandbox.METHODS,
)
