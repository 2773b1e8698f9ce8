"""Presence and typing: passing things, forwarded to those who are online and kept for nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whatsappd.sandbox.protocol.stanza import Node

if TYPE_CHECKING:
    from whatsappd.sandbox.server.connection import Connection
    from whatsappd.sandbox.state.switchboard import Switchboard


def handle(board: Switchboard, connection: Connection, node: Node) -> None:
    """A client says whether it is in use, and under which name."""
    device = connection.device
    assert device is not None
    if name := node.text("name"):
        board.registry.register(device.account.phone, name)


def handle_chatstate(board: Switchboard, connection: Connection, node: Node) -> None:
    """A client says that somebody is typing (`<composing/>`) or stopped (`<paused/>`)."""
    device = connection.device
    to = node.jid("to")
    account = board.registry.find(to) if to else None
    if device is None or to is None or account is None:
        return
    state = Node("chatstate", {"from": device.address(to.server).account}, node.content)
    for other in account.devices.values():
        if other.connection is not None and other.connection.active:
            board.send(other.connection, state)
