"""The table of handlers: which function answers which kind of stanza.

`sandbox` gives it to each connection. Requests (`<iq>`) have a table of their own, in `iq`.
"""

from __future__ import annotations

from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.server import iq, login, messages, presence, receipts
from whatsappd.sandbox.server.connection import StanzaHandlers
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.switchboard import Switchboard


def _ignore(board: Switchboard, client: ConnectedClient, node: Node) -> None:
    """`<ib>`: what clients report in it (unified_session, offline_batch) needs no answer."""


HANDLERS = StanzaHandlers(
    log_in=login.handle_handshake,
    by_tag={
        "message": messages.handle_message,
        "receipt": receipts.handle_receipt,
        "ack": receipts.handle_ack,
        "iq": iq.handle_iq,
        "presence": presence.handle_presence,
        "chatstate": presence.handle_chatstate,
        "ib": _ignore,
    },
    # Pairing is requests, and a notification if a passkey is asked for; whatsmeow's telemetry
    # (`ib`) may arrive before the pairing has ended.
    before_login=frozenset(("iq", "ib", "ack")),
)
