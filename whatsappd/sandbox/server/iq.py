"""Requests (`<iq>`): a client asks, and the server answers with the same id.

    <iq id type=get|set xmlns to>…</iq>    ->    <iq id type=result from>…</iq>
                                                 <iq id type=error from><error code text/></iq>

One table at the end names the requests that the sandbox knows, by namespace (`xmlns`) and type;
`prekeys`, `device_lists` and `groups` have the larger ones. All others are answered with error 501,
as the real server does, and counted.
"""

from __future__ import annotations

from collections.abc import Callable

from whatsappd.sandbox.phones import pairing
from whatsappd.sandbox.protocol.node import SERVER, Attrs, Node
from whatsappd.sandbox.protocol.violations import RequestFailed, not_implemented
from whatsappd.sandbox.server import device_lists, groups, prekeys
from whatsappd.sandbox.server.login import device_removed
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.switchboard import Switchboard

#: The child elements of the answer.
Answer = list[Node]
#: Answers one kind of request; RequestFailed becomes an answer of type error.
Answerer = Callable[[Switchboard, ConnectedClient, Node], Answer]


def handle_iq(board: Switchboard, client: ConnectedClient, node: Node) -> None:
    """Answer a request, or take the answer to a request of the server's own (pairing)."""
    kind = node.text("type")
    if kind in ("result", "error"):
        offer = board.offers.of(client)
        linked = None if offer is None else pairing.confirm(board, offer, node)
        if linked is not None:
            device_lists.announce_link(board, linked)
        return
    namespace = node.text("xmlns")
    if client.device is None:
        answerer: Answerer | None = _ping if namespace in _PING_NAMESPACES else None
    else:
        answerer = _ANSWERERS.get((namespace, kind))
    if answerer is _ping and _is_muted(board, client):
        board.statistics.pings_muted += 1
        return
    attrs: Attrs = {"from": node.jid("to") or SERVER, "id": node.text("id")}
    try:
        if answerer is None:
            board.statistics.note_unknown(_describe(node))
            raise not_implemented()
        content = answerer(board, client, node)
    except RequestFailed as failed:
        error = Node("error", {"code": str(failed.code), "text": failed.text})
        board.send(client, Node("iq", {"type": "error", **attrs}, [error]))
    else:
        board.send(client, Node("iq", {"type": "result", **attrs}, content or None))
        if namespace == "passive" and node.child("active"):
            board.activate(client)


def _describe(node: Node) -> str:
    child = node.children[0].tag if node.children else ""
    return f"{node.text('xmlns')} {node.text('type')} <{child}>"


def _is_muted(board: Switchboard, client: ConnectedClient) -> bool:
    device = client.device
    return board.faults.take("mute_pings", device.account.phone if device else None) is not None


def _ping(board: Switchboard, client: ConnectedClient, node: Node) -> Answer:
    board.statistics.pings += 1
    return []


def _nothing(board: Switchboard, client: ConnectedClient, node: Node) -> Answer:
    return []


def _linked_devices(board: Switchboard, client: ConnectedClient, node: Node) -> Answer:
    """`md`, `<remove-companion-device jid>`: a client unlinks its device, or one of its account."""
    device = client.device
    removal = node.child("remove-companion-device")
    if device is None or removal is None:
        board.statistics.note_unknown(_describe(node))
        raise not_implemented()
    wanted = removal.jid("jid")
    removed = board.registry.device(wanted) if wanted else None
    if removed is None or removed.account is not device.account:
        raise RequestFailed(404, "item-not-found")
    other = device_lists.remove_device(board, removed)
    if removed is device and board.faults.take("end_logouts", device.account.phone) is not None:
        board.end_stream(client, device_removed())
    elif removed is device:
        board.retire(client)
    elif other is not None:
        board.end_stream(other, device_removed())
    return []


#: Who may see what: everybody may see everything.
_PRIVACY = {
    "readreceipts": "all",
    "last": "all",
    "status": "all",
    "profile": "all",
    "groupadd": "all",
    "online": "all",
    "calladd": "all",
}


def _privacy(board: Switchboard, client: ConnectedClient, node: Node) -> Answer:
    categories = [
        Node("category", {"name": name, "value": value}) for name, value in _PRIVACY.items()
    ]
    return [Node("privacy", {}, categories)]


def _properties(board: Switchboard, client: ConnectedClient, node: Node) -> Answer:
    """Switches of the client's behaviour (`abt`, `w`): none is set."""
    return [Node("props", {"hash": "sandbox", "refresh": "86400"}, [])]


def _blocklist(board: Switchboard, client: ConnectedClient, node: Node) -> Answer:
    return [Node("list", {"dhash": "0"}, [])]


#: The namespaces of keep-alive pings. Clients that are not logged in may send nothing else.
_PING_NAMESPACES = ("w:p", "urn:xmpp:ping")

#: By namespace and type.
_ANSWERERS: dict[tuple[str, str], Answerer] = {
    ("w:p", "get"): _ping,
    ("urn:xmpp:ping", "get"): _ping,
    ("passive", "set"): _nothing,
    ("encrypt", "get"): prekeys.answer_get,
    ("encrypt", "set"): prekeys.answer_set,
    ("usync", "get"): device_lists.answer_usync,
    ("w:g2", "get"): groups.answer_get,
    ("w:g2", "set"): groups.answer_set,
    ("md", "set"): _linked_devices,
    ("privacy", "get"): _privacy,
    ("privacy", "set"): _nothing,
    ("blocklist", "get"): _blocklist,
    ("abt", "get"): _properties,
    ("w", "get"): _properties,
    ("w:stats", "set"): _nothing,
    ("urn:xmpp:whatsapp:dirty", "set"): _nothing,
}
