"""Device lists (`usync`): who has which devices, and who is told when that changes.

A client asks before it writes to somebody: for the LID of a phone number, for the device list, or
whether the number is on WhatsApp at all.

    <usync><query><contact/><lid/><devices/></query><list><user jid/>…</list></usync>
    <usync><result/><list><user jid><contact type=in/><lid val/><devices>…</devices></user></list>

Clients remember device lists. So the server tells those who asked when a device comes or goes
(`<notification type=devices>`), and the account's own devices (`account_sync`). Device 0, the
phone, is in every list and counted in every hash. whatsmeow: user.go, notification.go.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable

from whatsappd.model.jid import LID_SERVER, USER_SERVER, Jid
from whatsappd.sandbox.protocol import adv
from whatsappd.sandbox.protocol.node import Attrs, Node
from whatsappd.sandbox.protocol.violations import not_implemented
from whatsappd.sandbox.state.accounts import LinkedDevice, SandboxAccount
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.switchboard import Switchboard


def device_hash(jids: Iterable[Jid]) -> str:
    """The hash by which client and server compare lists of devices: `phash` or `dhash`.

    It is `2:` and the base64, without padding, of the first 6 bytes of a SHA-256 (whatsmeow:
    send.go, `participantListHashV2`).
    """
    # The notation has an agent behind the user, which is 0.
    texts = sorted(f"{jid.user}.0:{jid.device}@{jid.server}" for jid in jids)
    digest = hashlib.sha256("".join(texts).encode()).digest()[:6]
    return "2:" + base64.b64encode(digest).decode().rstrip("=")


def answer_usync(board: Switchboard, client: ConnectedClient, node: Node) -> list[Node]:
    """Answer a query: each of its users, with what the query asks for.

    Raises:
        RequestFailed: it is no such query.
    """
    request = node.child("usync")
    query = request.child("query") if request else None
    listed = request.child("list") if request else None
    if request is None or query is None or listed is None:
        raise not_implemented()
    device = client.device
    assert device is not None
    wanted = {protocol.tag: protocol for protocol in query.children}
    users = [_user(board, device, user, wanted) for user in listed.children if user.tag == "user"]
    attrs = {name: value for name, value in request.attrs.items() if name != "context"}
    result = Node("result", {}, [Node(tag) for tag in wanted])
    return [Node("usync", attrs, [result, Node("list", {}, users)])]


def _user(board: Switchboard, asking: LinkedDevice, user: Node, wanted: dict[str, Node]) -> Node:
    contact = user.child("contact")
    queried = contact.data.decode(errors="replace") if contact else ""
    jid = user.jid("jid")
    if jid is None:
        number = queried.partition("@")[0].lstrip("+")
        account = board.registry.by_number(number)
        # An alias: the client learns the number of the account.
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


def _devices(account: SandboxAccount, server: str) -> Node:
    devices = [Node("device", {"id": "0"})]
    devices += [
        Node("device", {"id": str(device.id), "key-index": str(device.key_index)})
        for device in account.devices.values()
    ]
    listed = Node("device-list", {"hash": device_hash(account.addresses(server))}, devices)
    return Node("devices", {}, [listed, _key_index_list(account)])


def _key_index_list(account: SandboxAccount) -> Node:
    current = max((device.key_index for device in account.devices.values()), default=0)
    now = int(time.time())
    signed = adv.key_index_list(account.signer, raw_id=account.raw_id, current=current, now=now)
    return Node("key-index-list", {"ts": str(now)}, signed)


def announce_link(board: Switchboard, device: LinkedDevice) -> None:
    """Tell all clients that may remember the account's device list of a device that was linked."""
    _announce(board, device, "add", list(device.account.devices.values()))


def remove_device(board: Switchboard, device: LinkedDevice) -> ConnectedClient | None:
    """Unlink a device, and tell those clients of it. Returns the device's client, if connected.

    The client's stream goes on; the caller ends it.
    """
    others = [other for other in device.account.devices.values() if other is not device]
    _announce(board, device, "remove", others)
    return board.unlink(device)


def _announce(
    board: Switchboard, changed: LinkedDevice, change: str, remaining: list[LinkedDevice]
) -> None:
    """Tell the account's own devices of the `remaining` ones, and all watchers of the change."""
    account = changed.account
    _announce_to_own(board, account, remaining, except_for=changed)
    told = _changes(changed, change, remaining)
    for phone in board.watchers.get(account.phone, ()):
        watcher = board.registry.by_phone(phone)
        if watcher is None or watcher is account:
            continue
        for watching in watcher.devices.values():
            for source, body in told:
                board.notify(watching, {**source, "type": "devices"}, [body])


def _changes(
    changed: LinkedDevice, change: str, remaining: list[LinkedDevice]
) -> list[tuple[Attrs, Node]]:
    """What watchers are told of a device that came (`add`) or goes (`remove`), in two ways.

    Clients remember lists by LID (whatsmeow today) or by phone number (Baileys, older whatsmeow),
    and understand only a notification that names theirs; so everybody is told both.
    """
    account = changed.account
    by_numbers = device_hash([account.jid, *(device.jid for device in remaining)])
    by_lids = device_hash([account.lid, *(device.lid for device in remaining)])
    index = {"key-index": str(changed.key_index)}
    signed = _key_index_list(account)
    of_lid = Node("device", {"jid": changed.lid, **index})
    of_number = Node("device", {"jid": changed.jid, "lid": changed.lid, **index})
    both: Attrs = {"device_hash": by_numbers, "device_lid_hash": by_lids}
    return [
        ({"from": account.lid}, Node(change, {"device_hash": by_lids}, [of_lid, signed])),
        ({"from": account.jid, "lid": account.lid}, Node(change, both, [of_number, signed])),
    ]


def _announce_to_own(
    board: Switchboard,
    account: SandboxAccount,
    remaining: list[LinkedDevice],
    *,
    except_for: LinkedDevice,
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
            board.notify(device, {"from": account.jid, "type": "account_sync"}, [listed])
