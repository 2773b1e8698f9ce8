"""A message that a client has sent to the server, with what handlers need to know of it."""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.model.jid import Jid
from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.state.accounts import LinkedDevice
from whatsappd.sandbox.state.statistics import MessageCounts


class IncomingMessage(NamedTuple):
    """A `<message>` of a client."""

    node: Node
    sender: LinkedDevice
    to: Jid  # the chat: a person's JID or LID, or a group; of a resent message a device
    counts: MessageCounts

    @property
    def id(self) -> str:
        """The id that the client gave it."""
        return self.node.text("id")
