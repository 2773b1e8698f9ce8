"""The virtual phones as devices of their accounts: device 0, which every message is encrypted for.

A phone takes what it gets and says so with a receipt. It keeps no private halves of its keys, so it
reads nothing. Where its account has linked devices it leaves the receipts to them: they are clients
under test, and a phone that is always awake would answer for one that is stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whatsappd.sandbox.protocol.stanza import Attrs, Node
from whatsappd.sandbox.state.accounts import Account, Device
from whatsappd.sandbox.state.switchboard import now

if TYPE_CHECKING:
    from whatsappd.model.jid import Jid
    from whatsappd.sandbox.state.statistics import Fate
    from whatsappd.sandbox.state.switchboard import Switchboard


def take(
    board: Switchboard, phone: Account, sender: Device, to: Jid, message_id: str, fate: Fate
) -> None:
    """A phone gets a message from `sender` to the chat `to`: the sender's devices get its receipt.

    Of the sender's own messages it says nothing, but for notes to self, which are meant for it.
    """
    attrs: Attrs = {"id": message_id, "t": now()}
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
    fate.receipts[kind] = fate.receipts.get(kind, 0) + 1
    board.statistics.receipts += 1
    for device in sender.account.devices.values():
        board.deliver(device, Node("receipt", {**attrs}))
