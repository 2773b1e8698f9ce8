"""Who has which devices (`usync`), and who is told when that changes.

Clients ask for a phone number's LID, for the device lists of those they write to, and whether a
number is on WhatsApp at all. They remember device lists; so the server tells those who asked when
a device comes or goes (`<notification type=devices>`, and `account_sync` for the own account).

Device 0 is the phone itself (see `primary`); it is in every list, and counted in every hash.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from whatsappd.model.jid import LID_SERVER, USER_SERVER, Jid
from whatsappd.sandbox.protocol import adv
from whatsappd.sandbox.protocol.stanza import Attrs, Node
from whatsappd.sandbox.protocol.violations import not_implemented
from whatsappd.sandbox.state.accounts import Account, Device
from whatsappd.sandbox.state.switchboard import now

if TYPE_CHECKING:
    from whatsappd.sandbox.server.connection import Connection
    from whatsappd.sandbox.state.switchboard import Switchboard


def device_hash(jids: Iterable[Jid]) -> str:
    """The hash by which both sides compare lists of devices ("participant hash", version 2)."""
    # In the notation with an agent, which is 0.
    texts = sorted(f"{jid.user}.0:{jid.device}@{jid.server}" for jid in jids)
    digest = hashlib.sha256("".join(texts).encode()).digest()[:6]
    return "2:" + base64.b64encode(digest).decode().rstrip("=")


def answer_usync(board: Switchboard, connection: Connection, node: Node) -> list[Node]:
    """The users of a query, each with what the query asks for."""
    request = node.child("usync")
    query = request.child("query") if request else None
    listed = request.child("list") if request else None
    if request is None or query is None or listed is None:
        raise not_implemented()
    device = connection.device
    assert device is not None
    wanted = {protocol.tag: protocol for protocol in query.children}
    users = [_user(board, device, user, wanted) for user in listed.children if user.tag == "user"]
    attrs = {name: value for name, value in request.attrs.items() if name != "context"}
    result = Node("result", {}, [Node(tag) for tag in wanted])
    return [Node("usync", attrs, [result, Node("list", {}, users)])]


def _user(board: Switchboard, asking: Device, user: Node, wanted: dict[str, Node]) -> Node:
    contact = user.child("contact")
    queried = contact.data.decode(errors="replace") if contact else ""
    jid = user.jid("jid")
    if jid is None:
        number = queried.partition("@")[0].lstrip("+")
        account = board.registry.by_number(number)
        # Whoever asks for a number learns the account's, which may be another one.
        jid = account.jid if account else Jid(number, USER_SERVER)
    else:
        account = board.registry.find(jid)
    attrs: Attrs = {"jid": jid}
    contact_query = wanted.get("contact")
    if account and contact_query and contact_query.text("addressing_mode") == "lid":
        attrs = {"jid": account.lid, "pn_jid": account.jid}
    children = []
    if contact_query:
        kind = {"type": "in" if account else "out"}
        children.append(Node("contact", {**kind}, queried.encode() or None))
    if account and "lid" in wanted and jid.server != LID_SERVER:
        children.append(Node("lid", {"val": account.lid}))
    if account and "devices" in wanted:
        board.watchers.setdefault(account.phone, set()).add(asking.account.phone)
        children.append(_devices(account, jid.server))
    return Node("user", attrs, children)


def _devices(account: Account, server: str) -> Node:
    devices = [Node("device", {"id": "0"})]
    devices += [
        Node("device", {"id": str(device.id), "key-index": str(device.key_index)})
        for device in account.devices.values()
    ]
    listed = Node("device-list", {"hash": device_hash(account.addresses(server))}, devices)
    return Node("devices", {}, [listed, _key_index_list(account)])


def _key_index_list(account: Account) -> Node:
    current = max((device.key_index for device in account.devices.values()), default=0)
    timestamp = int(time.time())
    signed = adv.key_index_list(
        account.signer, raw_id=account.raw_id, current=current, now=timestamp
    )
    return Node("key-index-list", {"ts": str(timestamp)}, signed)


def announce_link(board: Switchboard, device: Device) -> None:
    """Tell everybody who may remember the account's devices of a new one."""
    _announce(board, device, "add", list(device.account.devices.values()))


def announce_removal(board: Switchboard, device: Device) -> None:
    """Tell them that a device is about to be removed."""
    others = [other for other in device.account.devices.values() if other is not device]
    _announce(board, device, "remove", others)


def _announce(board: Switchboard, changed: Device, change: str, remaining: list[Device]) -> None:
    account = changed.account
    _announce_to_own(board, account, remaining, except_for=changed)
    numbers = device_hash([account.jid, *(device.jid for device in remaining)])
    lids = device_hash([account.lid, *(device.lid for device in remaining)])
    index = {"key-index": str(changed.key_index)}
    signed = _key_index_list(account)
    # Clients remember lists by phone number (Baileys, older whatsmeow) or by LID (newer), and each
    # understands only what names its own; so everybody is told both.
    by_lid = Node(
        change, {"device_hash": lids}, [Node("device", {"jid": changed.lid, **index}), signed]
    )
    device: Attrs = {"jid": changed.jid, "lid": changed.lid, **index}
    hashes: Attrs = {"device_hash": numbers, "device_lid_hash": lids}
    by_number = Node(change, hashes, [Node("device", device), signed])
    told: list[tuple[Attrs, Node]] = [
        ({"from": account.lid}, by_lid),
        ({"from": account.jid, "lid": account.lid}, by_number),
    ]
    for phone in board.watchers.get(account.phone, ()):
        watcher = board.registry.by_phone(phone)
        if watcher is None or watcher is account:
            continue
        for watching in watcher.devices.values():
            for source, body in told:
                attrs: Attrs = {**source, "type": "devices", "id": board.next_id(), "t": now()}
                board.deliver(watching, Node("notification", attrs, [body]))


def _announce_to_own(
    board: Switchboard, account: Account, remaining: list[Device], *, except_for: Device
) -> None:
    listed = Node(
        "devices",
        {"dhash": device_hash([account.jid, *(device.jid for device in remaining)])},
        [
            Node("device", {"jid": account.jid}),
            *(
                Node("device", {"jid": device.jid, "key-index": str(device.key_index)})
                for device in remaining
            ),
            _key_index_list(account),
        ],
    )
    for device in remaining:
        if device is not except_for:
            board.deliver(
                device,
                Node(
                    "notification",
                    {
                        "from": account.jid,
                        "type": "account_sync",
                        "id": board.next_id(),
                        "t": now(),
                    },
                    [listed],
                ),
            )
