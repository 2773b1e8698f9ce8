"""Receipts: a device has a message (or could not read it), and the sender learns of it.

A receipt is two things at once: the device's acknowledgement of a message, which then leaves its
queue, and a stanza of its own for the sender, which waits in the sender's queue until it is
acknowledged with `<ack class=receipt>`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whatsappd.sandbox.protocol.stanza import Attrs, Node
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.state.accounts import Device, QueueKey
from whatsappd.sandbox.state.switchboard import now

if TYPE_CHECKING:
    from whatsappd.model.jid import Jid
    from whatsappd.sandbox.server.connection import Connection
    from whatsappd.sandbox.state.switchboard import Switchboard

RETRY = "retry"
#: Receipts that say something about the reader, not that the message arrived.
_LATER_TYPES = ("read", "read-self", "played", "played-self")
_CLASSES = ("message", "receipt", "notification")


def handle(board: Switchboard, connection: Connection, node: Node) -> None:
    """Take a receipt from a client."""
    device = connection.device
    to = node.jid("to")
    assert device is not None
    if to is None or not node.text("id"):
        raise ProtocolViolation("a receipt without an id or an address")
    kind = node.text("type")
    board.statistics.receipts += 1
    ack: Attrs = {"class": "receipt", "id": node.text("id"), "from": to, "t": now()}
    for name in ("type", "participant"):
        if name in node.attrs:
            ack[name] = node.attrs[name]
    board.send(connection, Node("ack", ack))
    participant = node.jid("participant")
    if kind not in _LATER_TYPES:
        for message_id in _message_ids(node):
            key = _message_key(message_id, to, participant)
            if board.settle(device, key) and kind == RETRY:
                # An <ack> for the same copy follows, and must not take the resend for it.
                device.refused.add(key)
    _forward(board, device, node, to, participant or to)


def handle_ack(board: Switchboard, connection: Connection, node: Node) -> None:
    """Take a client's `<ack>` of a message, receipt or notification."""
    device = connection.device
    to = node.jid("to")
    stanza_class = node.text("class")
    if device is None or to is None or stanza_class not in _CLASSES:
        return  # without a device: of the notification that asks for a passkey
    if stanza_class == "message":
        key = _message_key(node.text("id"), to, node.jid("participant"))
        if key in device.refused:
            device.refused.discard(key)
        else:
            board.settle(device, key)
        return
    participant = str(node.attrs.get("participant", ""))
    board.settle(device, (stanza_class, node.text("id"), str(to), participant, node.text("type")))


def _message_key(message_id: str, to: Jid, participant: Jid | None) -> QueueKey:
    return ("message", message_id, str(to), str(participant or ""), "")


def _message_ids(node: Node) -> list[str]:
    ids = [node.text("id")]
    listed = node.child("list")
    if listed is not None:
        ids += [item.text("id") for item in listed.children if item.tag == "item"]
    return ids


def _forward(board: Switchboard, reader: Device, node: Node, to: Jid, sender: Jid) -> None:
    """Tell the sender's devices; a retry receipt concerns only the one that sent the message."""
    account = board.registry.find(sender)
    if account is None:
        return
    kind = node.text("type")
    device = account.devices.get(sender.device)
    if device is not None:
        for message_id in _message_ids(node):
            fate = board.statistics.messages.get((str(device.jid), message_id))
            if fate is not None:
                fate.receipts[kind] = fate.receipts.get(kind, 0) + 1
    attrs: Attrs = {"id": node.text("id"), "t": node.text("t") or now()}
    if to.is_group:
        attrs |= {"from": to, "participant": reader.lid}
    else:
        attrs["from"] = reader.address(to.server)
    for name in ("type", "recipient", "category"):
        if name in node.attrs:
            attrs[name] = node.attrs[name]
    receipt = Node("receipt", attrs, node.content)
    for target in [device] if kind == RETRY else list(account.devices.values()):
        if target is not None and target is not reader:
            board.deliver(target, receipt)
