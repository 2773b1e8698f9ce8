"""Messages: accepted from one device, acknowledged, and handed to each device they are for.

The server sees ciphertexts only: a `<message>` with one `<enc>` for each device of the recipient
and of the sender. It takes each apart for its device. A message to a group has one `<enc>` for all,
and single ones (with the key to it) for devices that do not have the key yet. A resend after a
retry receipt has a bare `<enc>` for one device and the same id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whatsappd.model.jid import LID_SERVER, Jid
from whatsappd.sandbox.phones import primary_device
from whatsappd.sandbox.protocol.stanza import Attrs, Node
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.server.device_lists import device_hash
from whatsappd.sandbox.state.accounts import Account, Device
from whatsappd.sandbox.state.groups import Group
from whatsappd.sandbox.state.statistics import Fate
from whatsappd.sandbox.state.switchboard import now

if TYPE_CHECKING:
    from whatsappd.sandbox.server.connection import Connection
    from whatsappd.sandbox.state.switchboard import Switchboard

#: The longest message id, in characters; thousands are remembered. Real ones have at most 32.
MAX_ID = 128
#: The answer to a message to a group that the sender is not in.
_FORBIDDEN = "403"
#: Parts of a message that the recipient sees besides its own <enc>.
_SHARED_PARTS = ("meta", "biz", "bot", "reporting", "franking")


def handle(board: Switchboard, connection: Connection, node: Node) -> None:
    """Take a message from a client."""
    sender = connection.device
    to = node.jid("to")
    message_id = node.text("id")
    assert sender is not None
    if to is None or not 0 < len(message_id) <= MAX_ID:
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
    group = board.groups.find(to)
    extra: Attrs = {}
    phones: list[Account] = []  # that get it; they say so after the acknowledgement
    if to.is_group and (group is None or sender.account.phone not in group.members):
        fate.refused += 1
        extra = {"error": _FORBIDDEN}
    elif "participant" in node.attrs or not (to.is_group or node.child("participants")):
        _forward_single(board, sender, node, to, fate)
    elif board.registry.accept(sender, message_id):
        statistics.accepted += 1
        fate.accepted += 1
        if group is None:
            extra = _forward_direct(board, sender, node, to, fate, phones)
        else:
            extra = _forward_to_group(board, sender, node, group, fate)
            phones = board.groups.accounts(group)
    else:
        # The client resends a frame whose acknowledgement it did not see: deliver nothing twice.
        statistics.resent += 1
        fate.resent += 1
    if board.faults.take("lose_acks", phone) is not None:
        statistics.acks_withheld += 1
        fate.acks_withheld += 1
    else:
        _acknowledge(board, connection, node, fate, extra)
    for account in phones:
        primary_device.take(board, account, sender, to, message_id, fate)


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


def _forward_direct(
    board: Switchboard, sender: Device, node: Node, to: Jid, fate: Fate, phones: list[Account]
) -> Attrs:
    """Hand a message to its devices; what the acknowledgement says about the list of them.

    The phones that it is for are added to `phones`.
    """
    reached = {sender.address(to.server)}
    shared = _shared(node)
    for jid, enc in _addressed(node).items():
        device = board.registry.device(jid)
        account = board.registry.find(jid)
        if account is None or device is sender or (device is None and jid.device):
            continue  # a device that was removed meanwhile
        reached.add(account.address(to.server)._replace(device=jid.device))
        if device is None:
            phones.append(account)
        else:
            _hand_over(board, sender, device, node, _with_identity([enc], shared, node), fate)
    recipient = board.registry.find(to)
    if recipient is None:
        return {}
    expected = {*recipient.addresses(to.server), *sender.account.addresses(to.server)}
    if reached == expected:
        return {}
    # The client's lists of devices are out of date: the hash of the right ones makes it ask again.
    return {"phash": device_hash(expected)}


def _forward_to_group(
    board: Switchboard, sender: Device, node: Node, group: Group, fate: Fate
) -> Attrs:
    """Hand a message to all devices of all members; the hash of these if the client's differs."""
    for_all = [part for part in node.children if part.tag == "enc"]
    addressed = {
        device: enc
        for jid, enc in _addressed(node).items()
        if (device := board.registry.device(jid)) is not None
    }
    shared = _shared(node)
    for device in board.groups.devices(group):
        if device is not sender:
            own = [addressed[device]] if device in addressed else []
            content = _with_identity([*own, *for_all], shared, node)
            _hand_over(board, sender, device, node, content, fate)
    members = board.groups.accounts(group)
    expected = device_hash(jid for account in members for jid in account.addresses(LID_SERVER))
    return {} if node.text("phash") == expected else {"phash": expected}


def _addressed(node: Node) -> dict[Jid, Node]:
    """The `<enc>` for each device that has one of its own."""
    participants = node.child("participants")
    found = {}
    for target in participants.children if participants else []:
        jid = target.jid("jid")
        enc = target.child("enc")
        if target.tag == "to" and jid is not None and enc is not None:
            found[jid] = enc
    return found


def _shared(node: Node) -> list[Node]:
    return [part for part in node.children if part.tag in _SHARED_PARTS]


def _with_identity(encs: list[Node], shared: list[Node], node: Node) -> list[Node]:
    """What one device gets: with the sender's identity if it begins a session."""
    identity = node.child("device-identity")
    if identity is not None and any(enc.text("type") == "pkmsg" for enc in encs):
        return [*encs, identity, *shared]
    return [*encs, *shared]


def _forward_single(board: Switchboard, sender: Device, node: Node, to: Jid, fate: Fate) -> None:
    """Hand a resend to the one device it is for."""
    target = node.jid("participant") or to
    device = board.registry.device(target)
    if device is None:
        # To a phone itself: requests among an account's own devices, which nobody answers here.
        return
    board.statistics.retries += 1
    encs = [part for part in node.children if part.tag == "enc"]
    _hand_over(board, sender, device, node, _with_identity(encs, _shared(node), node), fate)


def _garbled(enc: Node) -> Node:
    """The ciphertext with its last byte changed, which belongs to the check of all others."""
    return enc._replace(content=enc.data[:-1] + bytes([enc.data[-1] ^ 1]))


def _hand_over(
    board: Switchboard, sender: Device, device: Device, node: Node, content: list[Node], fate: Fate
) -> None:
    to = node.jid("to")
    assert to is not None
    attrs: Attrs = {
        "from": to,
        "id": node.text("id"),
        "type": node.text("type") or "text",
        "t": node.text("t") or now(),
    }
    if to.is_group:
        attrs["participant"] = sender.lid
        attrs["participant_pn"] = sender.account.jid
        attrs["addressing_mode"] = LID_SERVER
        attrs["notify"] = sender.account.shown_name
    elif device.account is sender.account:
        attrs["from"] = sender.address(to.server)
        recipient = node.jid("recipient") or to.account
        attrs["recipient"] = recipient
        peer = board.registry.find(recipient)
        if peer is not None and recipient.server == LID_SERVER:
            attrs["peer_recipient_pn"] = peer.jid
        elif peer is not None:
            attrs["peer_recipient_lid"] = peer.lid
    else:
        attrs["from"] = sender.address(to.server)
        attrs["notify"] = sender.account.shown_name
        if to.server == LID_SERVER:
            attrs["sender_pn"] = sender.account.jid
        else:
            attrs["sender_lid"] = sender.account.lid
    for name in ("edit", "category"):
        if name in node.attrs:
            attrs[name] = node.attrs[name]
    if board.faults.take("garble", device.account.phone) is not None:
        content = [_garbled(part) if part.tag == "enc" else part for part in content]
    board.deliver(device, Node("message", attrs, content))
    board.statistics.forwarded += 1
    fate.forwarded += 1
