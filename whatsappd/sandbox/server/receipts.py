"""Receipts: a device has got a message, or could not read it, and the sender learns of it.

    reader -> server   <receipt id to [participant] [type]>, more ids in <list><item id>
    server -> reader   <ack class=receipt id from>
    server -> sender   <receipt id from [participant] [type]>, to each device of the sender
    sender -> server   <ack class=receipt id to>

No type means delivered; others are read, played, sender (of the own account), and retry, which asks
the sending device to encrypt the message again. A receipt is also the reader's acknowledgement of
the message, which then leaves the reader's queue; except for read and played, which come later.
"""

from __future__ import annotations

from whatsappd.model.jid import Jid
from whatsappd.sandbox.protocol.node import Attrs, Node, timestamp
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.state.accounts import LinkedDevice, QueueKey
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.switchboard import Switchboard

#: The type of a receipt for a message that could not be read.
RETRY = "retry"
#: Types of receipts that come after the message was acknowledged.
_LATER_TYPES = ("read", "read-self", "played", "played-self")
#: What clients acknowledge with `<ack class>`.
_CLASSES = ("message", "receipt", "notification")


def handle_receipt(board: Switchboard, client: ConnectedClient, node: Node) -> None:
    """`<receipt>`: acknowledge it, settle the messages, and forward it to their sender."""
    device = client.device
    to = node.jid("to")
    assert device is not None
    if to is None or not node.text("id"):
        raise ProtocolViolation("a receipt without an id or an address")
    kind = node.text("type")
    board.statistics.receipts += 1
    ack: Attrs = {"class": "receipt", "id": node.text("id"), "from": to, "t": timestamp()}
    for name in ("type", "participant"):
        if name in node.attrs:
            ack[name] = node.attrs[name]
    board.send(client, Node("ack", ack))
    participant = node.jid("participant")
    if kind not in _LATER_TYPES:
        for message_id in _message_ids(node):
            key = _message_key(message_id, to, participant)
            if board.settle(device, key) and kind == RETRY:
                # An <ack> of the same copy may follow, which must not settle the resent one.
                device.refused.add(key)
    _forward(board, device, node, to, participant or to)


def handle_ack(board: Switchboard, client: ConnectedClient, node: Node) -> None:
    """`<ack class>`: the client acknowledges a message, receipt or notification."""
    device = client.device
    to = node.jid("to")
    stanza_class = node.text("class")
    if device is None or to is None or stanza_class not in _CLASSES:
        return  # a client without a device acknowledges the question for a passkey
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


def _forward(board: Switchboard, reader: LinkedDevice, node: Node, to: Jid, sender: Jid) -> None:
    """Tell the sender's devices; of a retry receipt only the one that sent the message."""
    account = board.registry.find(sender)
    if account is None:
        return
    kind = node.text("type")
    device = account.devices.get(sender.device)
    if device is not None:
        for message_id in _message_ids(node):
            counts = board.statistics.messages.get((str(device.jid), message_id))
            if counts is not None:
                counts.receipts[kind] = counts.receipts.get(kind, 0) + 1
    attrs: Attrs = {"id": node.text("id"), "t": node.text("t") or timestamp()}
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
