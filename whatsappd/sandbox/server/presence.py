"""Presence and typing: passing things, forwarded to those who are online and kept for nobody."""

from __future__ import annotations

from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.switchboard import Switchboard


def handle_presence(board: Switchboard, client: ConnectedClient, node: Node) -> None:
    """`<presence type name>`: whether the client is in use, and its push name, which is kept."""
    device = client.device
    assert device is not None
    if name := node.text("name"):
        board.registry.register(device.account.phone, name)


def handle_chatstate(board: Switchboard, client: ConnectedClient, node: Node) -> None:
    """`<chatstate to><composing/>` or `<paused/>`: typing began or stopped; forwarded to `to`."""
    device = client.device
    to = node.jid("to")
    account = board.registry.find(to) if to else None
    if device is None or to is None or account is None:
        return
    state = Node("chatstate", {"from": device.address(to.server).account}, node.content)
    for other in account.devices.values():
        receiver = board.client_of(other)
        if receiver is not None and receiver.active:
            board.send(receiver, state)
