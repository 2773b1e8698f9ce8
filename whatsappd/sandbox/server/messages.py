"""Messages: taken from one device, acknowledged, and forwarded to each device they are for.

The server sees ciphertexts only, in `<enc type v>`. A message to a person has one for each device
of the recipient and one for each other device of the sender:

    <message id to type><participants><to jid><enc/></to>…</participants>[<device-identity/>]

A message to a group has one `<enc type=skmsg>` for all, and in `<participants>` the key to it for
devices that lack it. The server takes these apart: each device gets a `<message from …>` with what
is for it. `<device-identity>` (`protocol.adv`) goes along where a session begins (`type=pkmsg`).

A resent message, after a retry receipt, has the same id, one bare `<enc>`, and goes to one device.
A frame that a client sends again, because it saw no `<ack>`, is acknowledged and not delivered.

    server -> sender   <ack class=message id from t [phash] [error]>

`phash`: the sender's device lists are out of date, and this is the hash of the right ones. `error`:
the message was refused. whatsmeow: send.go, message.go, retry.go.
"""

from __future__ import annotations

from whatsappd.model.jid import LID_SERVER, Jid
from whatsappd.sandbox.phones import primary_device
from whatsappd.sandbox.protocol.node import Attrs, Node, timestamp
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.server.device_lists import device_hash
from whatsappd.sandbox.state.accounts import LinkedDevice, SandboxAccount
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.groups import SandboxGroup
from whatsappd.sandbox.state.statistics import MessageCounts
from whatsappd.sandbox.state.switchboard import Switchboard

#: The longest message id, in characters, because thousands are remembered. Real ones have up to 32.
MAX_ID = 128
#: The answer to a message to a group that the sender is not in.
_FORBIDDEN = "403"
#: Elements of a message that all its devices get.
_SHARED_PARTS = ("meta", "biz", "bot", "reporting", "franking")


def handle_message(board: Switchboard, client: ConnectedClient, node: Node) -> None:
    """`<message>`: take it, acknowledge it and forward it; or refuse it.

    The faults `nack_sends`, `lose_acks`, `delay_acks` and `garble` strike here.
    """
    sender = client.device
    to = node.jid("to")
    message_id = node.text("id")
    assert sender is not None
    if to is None or not 0 < len(message_id) <= MAX_ID:
        raise ProtocolViolation("a message without an id or a recipient")
    statistics = board.statistics
    counts = statistics.of_message(str(sender.jid), message_id, str(to))
    phone = sender.account.phone
    refusal = board.faults.take("nack_sends", phone)
    if refusal is not None:
        counts.refused += 1
        statistics.refused += 1
        _acknowledge(board, client, node, counts, {"error": refusal["error"]})
        return
    group = board.groups.find(to)
    extra: Attrs = {}
    phones: list[SandboxAccount] = []  # that get it, too; their receipts follow the <ack>
    if to.is_group and (group is None or sender.account.phone not in group.members):
        counts.refused += 1
        extra = {"error": _FORBIDDEN}
    elif "participant" in node.attrs or not (to.is_group or node.child("participants")):
        _forward_single(board, sender, node, to, counts)
    elif board.registry.accept(sender, message_id):
        statistics.accepted += 1
        counts.accepted += 1
        if group is None:
            extra = _forward_direct(board, sender, node, to, counts, phones)
        else:
            extra = _forward_to_group(board, sender, node, group, counts)
            phones = board.groups.accounts(group)
    else:
        # The client has seen no <ack> and sends the frame again: nothing is delivered twice.
        statistics.resent += 1
        counts.resent += 1
    if board.faults.take("lose_acks", phone) is not None:
        statistics.acks_withheld += 1
        counts.acks_withheld += 1
    else:
        _acknowledge(board, client, node, counts, extra)
    for account in phones:
        primary_device.take_message(board, account, sender, to, message_id, counts)


def _acknowledge(
    board: Switchboard, client: ConnectedClient, node: Node, counts: MessageCounts, extra: Attrs
) -> None:
    attrs: Attrs = {"class": "message", "id": node.text("id"), "t": timestamp(), **extra}
    for name, source in (("from", "to"), ("participant", "participant")):
        value = node.attrs.get(source)
        if value is not None:
            attrs[name] = value
    ack = Node("ack", attrs)
    counts.acks += 1
    phone = client.device.account.phone if client.device else None
    delay = board.faults.take("delay_acks", phone)
    if delay is None:
        board.send(client, ack)
    else:
        client.wire.send_later(ack, delay["delay"])


def _forward_direct(
    board: Switchboard,
    sender: LinkedDevice,
    node: Node,
    to: Jid,
    counts: MessageCounts,
    phones: list[SandboxAccount],
) -> Attrs:
    """Forward a message to its devices, and add the phones that it is for to `phones`.

    Returns further attributes of the `<ack>`: `phash` if the client's device lists are outdated.
    """
    reached = {sender.address(to.server)}
    shared = _shared(node)
    for jid, enc in _addressed(node).items():
        device = board.registry.device(jid)
        account = board.registry.find(jid)
        if account is None or device is sender or (device is None and jid.device):
            continue  # a device that has been removed
        reached.add(account.address(to.server)._replace(device=jid.device))
        if device is None:
            phones.append(account)
        else:
            _hand_over(board, sender, device, node, _with_identity([enc], shared, node), counts)
    recipient = board.registry.find(to)
    if recipient is None:
        return {}
    expected = {*recipient.addresses(to.server), *sender.account.addresses(to.server)}
    if reached == expected:
        return {}
    # With this hash, which is not its own, the client asks for the device lists again.
    return {"phash": device_hash(expected)}


def _forward_to_group(
    board: Switchboard, sender: LinkedDevice, node: Node, group: SandboxGroup, counts: MessageCounts
) -> Attrs:
    """Forward a message to all devices of all members.

    Returns further attributes of the `<ack>`: `phash` if the client's device lists are outdated.
    """
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
            _hand_over(board, sender, device, node, content, counts)
    members = board.groups.accounts(group)
    expected = device_hash(jid for account in members for jid in account.addresses(LID_SERVER))
    return {} if node.text("phash") == expected else {"phash": expected}


def _addressed(node: Node) -> dict[Jid, Node]:
    """The `<enc>` of each device that has one of its own."""
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
    """The content for one device: with the sender's `<device-identity>` if it begins a session."""
    identity = node.child("device-identity")
    if identity is not None and any(enc.text("type") == "pkmsg" for enc in encs):
        return [*encs, identity, *shared]
    return [*encs, *shared]


def _forward_single(
    board: Switchboard, sender: LinkedDevice, node: Node, to: Jid, counts: MessageCounts
) -> None:
    """Forward a resent message to the one device that it is for."""
    target = node.jid("participant") or to
    device = board.registry.device(target)
    if device is None:
        # To a phone (device 0): requests to the own phone, which the virtual one does not answer.
        return
    board.statistics.retries += 1
    encs = [part for part in node.children if part.tag == "enc"]
    _hand_over(board, sender, device, node, _with_identity(encs, _shared(node), node), counts)


def _garbled(enc: Node) -> Node:
    """An `<enc>` whose last byte is changed: it is part of the MAC, so decryption fails."""
    return enc._replace(content=enc.data[:-1] + bytes([enc.data[-1] ^ 1]))


def _hand_over(
    board: Switchboard,
    sender: LinkedDevice,
    device: LinkedDevice,
    node: Node,
    content: list[Node],
    counts: MessageCounts,
) -> None:
    to = node.jid("to")
    assert to is not None
    attrs: Attrs = {
        "from": to,
        "id": node.text("id"),
        "type": node.text("type") or "text",
        "t": node.text("t") or timestamp(),
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
    counts.forwarded += 1
