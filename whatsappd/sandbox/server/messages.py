"""Messages: taken from one device, acknowledged, and forwarded to each device they are for.

The server sees ciphertexts only, in `<enc type v>`. A message to a person has one for each device
of the recipient and one for each other device of the sender:

    <message id to type><participants><to jid><enc/></to>…</participants>[<device-identity/>]

A message to a group has one `<enc type=skmsg>` for all, and in `<participants>` the key to it for
devices that lack it. `message_forwarding` takes these apart, so that each device gets what is for
it.

A resent message, after a retry receipt, has the same id, one bare `<enc>`, and goes to one device.
A frame that a client sends again, because it saw no `<ack>`, is acknowledged and not delivered.

    server -> sender   <ack class=message id from t [phash] [error]>

`phash`: the sender's device lists are out of date, and this is the hash of the right ones. `error`:
the message was refused. whatsmeow: send.go, message.go, retry.go.
"""

from __future__ import annotations

from whatsappd.sandbox.phones import primary_device
from whatsappd.sandbox.protocol.node import Attrs, Node, timestamp
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.server.message_forwarding import (
    Forwarded,
    forward_direct,
    forward_resent,
    forward_to_group,
)
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.incoming_message import IncomingMessage
from whatsappd.sandbox.state.switchboard import Switchboard

#: The longest message id, in characters, because thousands are remembered. Real ones have up to 32.
MAX_ID = 128
#: The error of a message to a group that the sender is not in.
_FORBIDDEN = "403"


def handle_message(board: Switchboard, client: ConnectedClient, node: Node) -> None:
    """`<message>`: take it, acknowledge it and forward it; or refuse it.

    The faults `nack_sends`, `lose_acks` and `delay_acks` strike here.
    """
    sender = client.device
    to = node.jid("to")
    message_id = node.text("id")
    assert sender is not None
    if to is None or not 0 < len(message_id) <= MAX_ID:
        raise ProtocolViolation("a message without an id or a recipient")
    counts = board.statistics.of_message(str(sender.jid), message_id, str(to))
    message = IncomingMessage(node, sender, to, counts)
    phone = sender.account.phone
    refusal = board.faults.take("nack_sends", phone)
    if refusal is not None:
        counts.refused += 1
        board.statistics.refused += 1
        _acknowledge(board, client, message, {"error": refusal["error"]})
        return
    forwarded, extra = _forward(board, message)
    if board.faults.take("lose_acks", phone) is not None:
        board.statistics.acks_withheld += 1
        counts.acks_withheld += 1
    else:
        _acknowledge(board, client, message, extra)
    for account in forwarded.phones:  # their receipts follow the <ack>
        primary_device.take_message(board, account, message)


def _forward(board: Switchboard, message: IncomingMessage) -> tuple[Forwarded, Attrs]:
    """Forward a message as its kind demands. Returns also further attributes of the `<ack>`."""
    node, sender, to, counts = message
    group = board.groups.find(to)
    forwarded = Forwarded()
    if to.is_group and (group is None or sender.account.phone not in group.members):
        counts.refused += 1
        return forwarded, {"error": _FORBIDDEN}
    if "participant" in node.attrs or not (to.is_group or node.child("participants")):
        forward_resent(board, message)
    elif board.registry.accept(sender, message.id):
        board.statistics.accepted += 1
        counts.accepted += 1
        if group is None:
            forwarded = forward_direct(board, message)
        else:
            forwarded = forward_to_group(board, message, group)
    else:
        # The client has seen no <ack> and sends the frame again: nothing is delivered twice.
        board.statistics.resent += 1
        counts.resent += 1
    return forwarded, {"phash": forwarded.phash} if forwarded.phash else {}


def _acknowledge(
    board: Switchboard, client: ConnectedClient, message: IncomingMessage, extra: Attrs
) -> None:
    """Send the `<ack>` with `extra` attributes, now or as late as the fault `delay_acks` says."""
    attrs: Attrs = {"class": "message", "id": message.id, "t": timestamp(), **extra}
    for name, source in (("from", "to"), ("participant", "participant")):
        value = message.node.attrs.get(source)
        if value is not None:
            attrs[name] = value
    ack = Node("ack", attrs)
    message.counts.acks += 1
    delay = board.faults.take("delay_acks", message.sender.account.phone)
    if delay is None:
        board.send(client, ack)
    else:
        client.wire.send_later(ack, delay["delay"])
