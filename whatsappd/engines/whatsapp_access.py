"""How workers reach WhatsApp, or the sandbox in its place."""

from __future__ import annotations

from typing import NamedTuple

#: HTTPS, and names that do not fit into a UDP packet.
WHATSAPP_PORTS = frozenset({443, 53})


class WhatsAppAccess(NamedTuple):
    """How workers reach WhatsApp: directly, or the sandbox in its place."""

    proxy: str | None = None  # socks5:// or http:// URL given to neonize
    noise_root: bytes | None = None  # replaces WhatsApp's key in the workers' memory (sandbox only)
    ports: frozenset[int] = WHATSAPP_PORTS  # TCP ports that workers may connect to
