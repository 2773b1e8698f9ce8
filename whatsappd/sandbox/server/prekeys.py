"""The key server (`encrypt`): clients upload prekeys, and fetch those of others to write to them.

    <iq type=set xmlns=encrypt>  <registration/> <type/> <identity/> <list><key/>…</list> <skey/>
    <iq type=get xmlns=encrypt>  <key><user jid/>…</key>   the bundles of devices
                                 <count/>                  how many one-time prekeys are left
                                 <digest/>                 what the server has

A bundle begins a session (Signal's X3DH): registration id (4 bytes), identity key (32 bytes),
signed prekey (`skey`: id of 3 bytes, key, signature of 64 bytes) and a one-time prekey, each of
which is handed out once. A device that has none left is reachable still: a bundle without one
begins a session, with less forward secrecy. whatsmeow: prekeys.go.
"""

from __future__ import annotations

from whatsappd.model.jid import Jid
from whatsappd.sandbox.protocol.node import SERVER, Node
from whatsappd.sandbox.protocol.violations import ProtocolViolation, not_implemented
from whatsappd.sandbox.state.accounts import LinkedDevice, SignedPreKey
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.switchboard import Switchboard

#: How many one-time prekeys a device is told to have that never uploaded any. Clients upload more
#: below 5. Told 0, whatsmeow makes 812 keys instead of 50, which takes half a second.
FIRST_COUNT = 1
#: With this many left, the device is told once to upload more.
LOW_COUNT = 4

_CURVE25519 = b"\x05"  # the type of all keys
_NOT_FOUND = {"code": "404", "text": "item-not-found"}


def answer_get(board: Switchboard, client: ConnectedClient, node: Node) -> list[Node]:
    """Answer `<count/>`, `<key>` or `<digest/>`.

    Raises:
        RequestFailed: it asks for something else.
    """
    device = client.device
    assert device is not None
    if node.child("count"):
        count = len(device.prekeys) if device.uploaded else FIRST_COUNT
        return [Node("count", {"value": str(count)})]
    if request := node.child("key"):
        users = [
            _bundle(board, jid)
            for user in request.children
            if user.tag == "user" and (jid := user.jid("jid")) is not None
        ]
        return [Node("list", {}, users)]
    if node.child("digest"):
        return [_digest(device)]
    raise not_implemented()


def answer_set(board: Switchboard, client: ConnectedClient, node: Node) -> list[Node]:
    """Store an upload of keys, or a new signed prekey (`<rotate>`).

    Raises:
        RequestFailed: it is something else.
        ProtocolViolation: a key is missing or has the wrong size.
    """
    device = client.device
    assert device is not None
    if rotate := node.child("rotate"):
        board.registry.rotate_signed_prekey(device, _signed_prekey(rotate))
        return []
    listed = node.child("list")
    if listed is None:
        raise not_implemented()
    board.registry.upload_keys(
        device,
        _data(node, "registration", 4),
        _data(node, "identity", 32),
        _signed_prekey(node),
        {
            _data(key, "id", 3): _data(key, "value", 32)
            for key in listed.children
            if key.tag == "key"
        },
    )
    return []


def _bundle(board: Switchboard, jid: Jid) -> Node:
    device = board.registry.device(jid)
    if device is None:
        return _phone_bundle(board, jid)
    children = [
        Node("registration", {}, device.registration),
        Node("type", {}, _CURVE25519),
        Node("identity", {}, device.identity),
        _skey(device.signed_prekey),
    ]
    prekey = board.registry.take_prekey(device)
    if prekey is not None:
        number, value = prekey
        children.append(Node("key", {}, [Node("id", {}, number), Node("value", {}, value)]))
        if len(device.prekeys) == LOW_COUNT:
            _ask_for_more(board, device)
    return Node("user", {"jid": jid}, children)


def _phone_bundle(board: Switchboard, jid: Jid) -> Node:
    """The bundle of a phone (device 0), without a one-time prekey; an error for an unknown JID."""
    account = board.registry.find(jid)
    if account is None or jid.device:
        return Node("user", {"jid": jid}, [Node("error", {**_NOT_FOUND})])
    return Node(
        "user",
        {"jid": jid},
        [
            Node("registration", {}, account.raw_id.to_bytes(4, "big")),
            Node("type", {}, _CURVE25519),
            Node("identity", {}, account.signer.public),
            _skey(board.registry.phone_prekey(account)),
        ],
    )


def _ask_for_more(board: Switchboard, device: LinkedDevice) -> None:
    count = Node("count", {"value": str(len(device.prekeys))})
    board.notify(device, {"from": SERVER, "type": "encrypt"}, [count])


def _digest(device: LinkedDevice) -> Node:
    numbers = [Node("id", {}, number) for number in device.prekeys]
    return Node(
        "digest",
        {},
        [
            Node("registration", {}, device.registration),
            Node("type", {}, _CURVE25519),
            Node("identity", {}, device.identity),
            _skey(device.signed_prekey),
            Node("list", {}, numbers),
        ],
    )


def _skey(key: SignedPreKey) -> Node:
    return Node(
        "skey",
        {},
        [
            Node("id", {}, key.id),
            Node("value", {}, key.key),
            Node("signature", {}, key.signature),
        ],
    )


def _signed_prekey(parent: Node) -> SignedPreKey:
    skey = parent.child("skey")
    if skey is None:
        raise ProtocolViolation("an upload of keys lacks its <skey>")
    return SignedPreKey(
        _data(skey, "id", 3), _data(skey, "value", 32), _data(skey, "signature", 64)
    )


def _data(parent: Node, tag: str, size: int) -> bytes:
    child = parent.child(tag)
    data = child.data if child else b""
    if len(data) != size:
        raise ProtocolViolation(f"<{tag}> of an upload of keys must have {size} bytes")
    return data
