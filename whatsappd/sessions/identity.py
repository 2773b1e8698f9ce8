"""Who a session is on WhatsApp."""

from __future__ import annotations

from typing import NamedTuple


class SessionIdentity(NamedTuple):
    """The linked device, by both of its addresses; None: it is not linked, or that is not known."""

    jid: str | None = None
    lid: str | None = None
    push_name: str | None = None
