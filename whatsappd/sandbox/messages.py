"""Messages: accepted from one device, acknowledged, and handed to each device they are for.

The server sees ciphertexts only: a `<message>` with one `<enc>` for each device of the recipient
and of the sender. It takes each apart for its device. A resend after a retry receipt has a bare
`<enc>` for one device and the same id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whatsappd.model.jid import LID_SERVER, Jid
from whatsappd.sandbox.accounts import Device
from whatsappd.sandbox.directory import device_hash
from whatsappd.sandbox.stanza import Attrs, Node
from whatsappd.sandbox.statistics import Fate
from whatsappd.sandbox.switchboard import now
from whatsappd.sandbox.violation import ProtocolViolation

if TYPE_CHECKING:
    from whatsappd.sandbox.connection import Connection
    from whatsappd.sandbox.switchboard import Switchboard

#: Parts of a message that the recipient sees besides its own <enc>.
_SHARED_PARTS = ("meta", "biz", "bot", "reporting", "franking")


def handle(board: Switchboard, connection: Connection, node: Node) -> None:
    """Take a message from a client."""
    sender = connection.device
    to = node.jid("to")
    message_id = node.text("id")
    assert sender is not None
    if to is None or not message_id:
        raise ProtocolViolation("a message without an id or a recipient")
    statistics = board.statistics
    fate = statistics.fate(str(sender.jid), message_id, str(to))
    phone = sender.account.phone
    refusal = board.faults.take("nack_sends", phone)
    if refusal is not None:
        fate.refused += 1
        statistics.refused += 1
        _acknowledge(board, connection, node, fate, {"error": refusal["error"]})
        return
    participants = node.child("participants")
    extra: Attrs = {}
    if participants is None:
        _forward_single(board, sender, node, to, fate)
    elif board.registry.accept(sender, message_id):
        statistics.accepted += 1
        fate.accepted += 1
        extra = _forward_all(board, sender, node, to, participants, fate)
    else:
        # The client resends a frame whose acknowledgement it did not see: deliver nothing twice.
        statistics.resent += 1
        fate.resent += 1
    if board.faults.take("lose_acks", phone) is not None:
        statistics.acks_withheld += 1
        fate.acks_withheld += 1
    else:
        _acknowledge(board, connection, node, fate, extra)


def _acknowledge(
    board: Switchboard, connection: Connection, node: Node, fate: Fate, extra: Attrs
) -> None:
    attrs: Attrs = {"class": "message", "id": node.text("id"), "t": now(), **extra}
    for name, source in (("from", "to"), ("participant", "participant")):
        value = node.attrs.get(source)
        if value is not None:
            attrs[name] = value
    ack = Node("ack", attrs)
    fate.acks += 1
    phone = connection.device.account.phone if connection.device else None
    delay = board.faults.take("delay_acks", phone)
    if delay is None:
        board.send(connection, ack)
    else:
        connection.send_later(ack, delay["delay"])


def _forward_all(
    board: Switchboard, sender: Device, node: Node, to: Jid, participants: Node, fate: Fate
) -> Attrs:
    """Hand a message to its devices; what the acknowledgement says about the list of them."""
    shared = [part for part in node.children if part.tag in _SHARED_PARTS]
    identity = node.child("device-identity")
    reached = set()
    for target in participants.children:
        jid = target.jid("jid")
        enc = target.child("enc")
        if target.tag != "to" or jid is None or enc is None:
            continue
        device = board.registry.device(jid)
        if device is None or device is sender:
            continue  # a phone itself, or a device that was removed meanwhile
        reached.add(device)
        content = [enc, *shared]
        if identity is not None and enc.text("type") == "pkmsg":
            content.append(identity)
        _hand_over(board, sender, device, node, content, fate)
    recipient = board.registry.find(to)
    if recipient is None:
        return {}
    expected = {*recipient.devices.values(), *sender.account.devices.values()}
    if reached | {sender} == expected:
        return {}
    # The client's lists of devices are out of date: the hash of the right ones makes it ask again.
    return {"phash": device_hash(device.address(to.server) for device in expected)}


def _forward_single(board: Switchboard, sender: Device, node: Node, to: Jid, fate: Fate) -> None:
    """Hand a resend to the one device it is for."""
    target = node.jid("participant") or to
    device = board.registry.device(target)
    if device is None:
        # To a phone itself: requests among an account's own devices, which nobody answers here.
        return
    board.statistics.retries += 1
    content = [part for part in node.children if part.tag in ("enc", *_SHARED_PARTS)]
    identity = node.child("device-identity")
    if identity is not None:
        content.append(identity)
    _hand_over(board, sender, device, node, content, fate)


def _hand_over(
    board: Switchboard, sender: Device, device: Device, node: Node, content: list[Node], fate: Fate
) -> None:
    to = node.jid("to")
    assert to is not None
    attrs: Attrs = {
        "from": sender.address(to.server),
        "id": node.text("id"),
        "type": node.text("type") or "text",
        "t": node.text("t") or now(),
    }
    if device.account is sender.account:
        recipient = node.jid("recipient") or to.account
        attrs["recipient"] = recipient
        peer = board.registry.find(recipient)
        if peer is not None:
            attrs[
                "peer_recipient_pn" if recipient.server == LID_SERVER else "peer_recipient_lid"
            ] = peer.jid if recipient.server == LID_SERVER else peer.lid
    else:
        attrs["notify"] = sender.account.name or f"+{sender.account.phone}"
        if to.server == LID_SERVER:
            attrs["sender_pn"] = sender.account.jid
        else:
            attrs["sender_lid"] = sender.account.lid
    for name in ("edit", "category"):
        if name in node.attrs:
            attrs[name] = node.attrs[name]
    board.deliver(device, Node("message", attrs, content))
    board.statistics.forwarded += 1
    fate.forwarded += 1
