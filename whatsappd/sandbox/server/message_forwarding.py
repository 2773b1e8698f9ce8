"""Forwarding: takes a message apart, so that each device gets a `<message>` with what is for it.

    <message from id type t notify [sender_pn|sender_lid]><enc/>[<device-identity/>]   to a person
    <message from=GROUP participant participant_pn …>…                                 to a group
    <message from recipient [peer_recipient_pn|peer_recipient_lid]>…    to the sender's own devices

The sender's `<device-identity>` (`protocol.adv`) goes along where an `<enc type=pkmsg>` begins a
session. Attributes name both identities of the other side, as the real server does. The fault
`garble` strikes here.
"""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.model.jid import LID_SERVER, Jid
from whatsappd.sandbox.protocol.node import Attrs, Node, timestamp
from whatsappd.sandbox.server.device_lists import device_hash
from whatsappd.sandbox.state.accounts import LinkedDevice, SandboxAccount
from whatsappd.sandbox.state.groups import SandboxGroup
from whatsappd.sandbox.state.incoming_message import IncomingMessage
from whatsappd.sandbox.state.switchboard import Switchboard

#: Elements of a message that all its devices get.
_SHARED_PARTS = ("meta", "biz", "bot", "reporting", "franking")


class Forwarded(NamedTuple):
    """What came of forwarding a message."""

    phones: tuple[SandboxAccount, ...] = ()  # accounts whose phone (device 0) gets it, too
    #: If the sender's device lists are outdated: the hash of the right ones. It makes the client
    #: ask for them again.
    phash: str = ""


def forward_direct(board: Switchboard, message: IncomingMessage) -> Forwarded:
    """Forward a message to a person: to the devices in its `<participants>`."""
    node, sender, to, _ = message
    reached = {sender.address(to.server)}
    phones = []
    for jid, enc in _addressed(node).items():
        device = board.registry.device(jid)
        account = board.registry.find(jid)
        if account is None or device is sender or (device is None and jid.device):
            continue  # a device that has been removed
        reached.add(account.address(to.server)._replace(device=jid.device))
        if device is None:
            phones.append(account)
        else:
            _hand_over(board, message, device, [enc])
    recipient = board.registry.find(to)
    if recipient is None:
        return Forwarded(tuple(phones))
    expected = {*recipient.addresses(to.server), *sender.account.addresses(to.server)}
    return Forwarded(tuple(phones), "" if reached == expected else device_hash(expected))


def forward_to_group(
    board: Switchboard, message: IncomingMessage, group: SandboxGroup
) -> Forwarded:
    """Forward a message to a group: to all devices of all members but the sender."""
    node = message.node
    for_all = [part for part in node.children if part.tag == "enc"]
    addressed = {
        device: enc
        for jid, enc in _addressed(node).items()
        if (device := board.registry.device(jid)) is not None
    }
    for device in board.groups.devices(group):
        if device is not message.sender:
            own = [addressed[device]] if device in addressed else []
            _hand_over(board, message, device, [*own, *for_all])
    members = tuple(board.groups.accounts(group))
    expected = device_hash(jid for account in members for jid in account.addresses(LID_SERVER))
    return Forwarded(members, "" if node.text("phash") == expected else expected)


def forward_resent(board: Switchboard, message: IncomingMessage) -> None:
    """Forward a message that was encrypted again to the one device that asked for it.

    One for a phone (device 0) is dropped: it is a request to the own phone, which the virtual one
    does not answer.
    """
    device = board.registry.device(message.node.jid("participant") or message.to)
    if device is not None:
        board.statistics.retries += 1
        encs = [part for part in message.node.children if part.tag == "enc"]
        _hand_over(board, message, device, encs)


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


def _hand_over(
    board: Switchboard, message: IncomingMessage, device: LinkedDevice, encs: list[Node]
) -> None:
    """Deliver a message to one device, with the ciphertexts that are for it."""
    if board.faults.take("garble", device.account.phone) is not None:
        encs = [_garbled(enc) for enc in encs]
    content = list(encs)
    identity = message.node.child("device-identity")
    if identity is not None and any(enc.text("type") == "pkmsg" for enc in encs):
        content.append(identity)
    content += [part for part in message.node.children if part.tag in _SHARED_PARTS]
    board.deliver(device, Node("message", _attributes(board, message, device), content))
    board.statistics.forwarded += 1
    message.counts.forwarded += 1


def _attributes(board: Switchboard, message: IncomingMessage, device: LinkedDevice) -> Attrs:
    """The attributes of the `<message>` that a device gets."""
    node, sender, to, _ = message
    attrs: Attrs = {
        "from": to if to.is_group else sender.address(to.server),
        "id": message.id,
        "type": node.text("type") or "text",
        "t": node.text("t") or timestamp(),
    }
    if to.is_group:
        attrs["participant"] = sender.lid
        attrs["participant_pn"] = sender.account.jid
        attrs["addressing_mode"] = LID_SERVER
        attrs["notify"] = sender.account.shown_name
    elif device.account is sender.account:
        recipient = node.jid("recipient") or to.account
        attrs["recipient"] = recipient
        peer = board.registry.find(recipient)
        if peer is not None and recipient.server == LID_SERVER:
            attrs["peer_recipient_pn"] = peer.jid
        elif peer is not None:
            attrs["peer_recipient_lid"] = peer.lid
    else:
        attrs["notify"] = sender.account.shown_name
        if to.server == LID_SERVER:
            attrs["sender_pn"] = sender.account.jid
        else:
            attrs["sender_lid"] = sender.account.lid
    for name in ("edit", "category"):
        if name in node.attrs:
            attrs[name] = node.attrs[name]
    return attrs


def _garbled(enc: Node) -> Node:
    """An `<enc>` whose last byte is changed: it is part of the MAC, so decryption fails."""
    return enc._replace(content=enc.data[:-1] + bytes([enc.data[-1] ^ 1]))
