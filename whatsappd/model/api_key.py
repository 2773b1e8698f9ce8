"""API keys of the gateway, without their secrets."""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.model.access import KeyScope


class ApiKey(NamedTuple):
    """A key without its secret. `companies` None: all of them, future ones too."""

    id: str
    name: str
    scope: KeyScope
    companies: tuple[str, ...] | None
    created_ms: int
    last_used_ms: int | None  # to the minute; None: never
