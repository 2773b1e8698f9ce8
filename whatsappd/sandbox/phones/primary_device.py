"""The virtual phone as device 0 of its account: every message is encrypted for it, too.

A phone takes the messages that it gets and sends a receipt. It has thrown away the private halves
of its keys, so it reads nothing. If its account has linked devices, it leaves the receipts to them:
they are the clients under test, and a phone that is always on would answer for one that is stopped.
"""

from __future__ import annotations

from whatsappd.sandbox.protocol.node import Attrs, Node, timestamp
from whatsappd.sandbox.state.accounts import SandboxAccount
from whatsappd.sandbox.state.incoming_message import IncomingMessage
from whatsappd.sandbox.state.switchboard import Switchboard


def take_message(board: Switchboard, phone: SandboxAccount, message: IncomingMessage) -> None:
    """A phone got a message: the sender's devices get its receipt.

    For messages of its own account it sends none, except in the chat with itself.
    """
    _, sender, to, counts = message
    attrs: Attrs = {"id": message.id, "t": timestamp()}
    if phone is sender.account:
        if board.registry.find(to) is not phone:
            return
        attrs |= {"from": phone.address(to.server), "type": "sender"}
        attrs["recipient"] = phone.address(to.server)
    elif phone.devices:
        return
    elif to.is_group:
        attrs |= {"from": to, "participant": phone.lid}
    else:
        attrs["from"] = phone.address(to.server)
    kind = str(attrs.get("type", ""))
    counts.receipts[kind] = counts.receipts.get(kind, 0) + 1
    board.statistics.receipts += 1
    for device in sender.account.devices.values():
        board.deliver(device, Node("receipt", {**attrs}))
