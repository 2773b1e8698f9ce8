"""Requests (`<iq>`): a client asks, the server answers with the same id.

One table names what is known, by namespace and type; `directory` and `keys` hold the larger ones.
Everything else is answered as the real server does it, with an error, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from whatsappd.sandbox.phones import pairing
from whatsappd.sandbox.protocol.stanza import Attrs, Node
from whatsappd.sandbox.protocol.violations import RequestFailed, not_implemented
from whatsappd.sandbox.server import device_lists, groups, prekeys
from whatsappd.sandbox.server.login import device_removed
from whatsappd.sandbox.state.switchboard import SERVER

if TYPE_CHECKING:
    from whatsappd.sandbox.server.connection import Connection
    from whatsappd.sandbox.state.switchboard import Switchboard


Answer = list[Node]
Answerer = Callable[["Switchboard", "Connection", Node], Answer]


def handle(board: Switchboard, connection: Connection, node: Node) -> None:
    """Answer a request, or take the answer to one of the server's own."""
    kind = node.text("type")
    if kind in ("result", "error"):
        if connection.offer is not None:
            pairing.confirm(board, connection.offer, node)
        return
    namespace = node.text("xmlns")
    if connection.device is None:
        answerer: Answerer | None = _ping if namespace in _PING_NAMESPACES else None
    else:
        answerer = _ANSWERERS.get((namespace, kind))
    if answerer is _ping and _is_muted(board, connection):
        board.statistics.pings_muted += 1
        return
    attrs: Attrs = {"from": node.jid("to") or SERVER, "id": node.text("id")}
    try:
        if answerer is None:
            board.statistics.note_unknown(_describe(node))
            raise not_implemented()
        content = answerer(board, connection, node)
    except RequestFailed as failed:
        error = Node("error", {"code": str(failed.code), "text": failed.text})
        board.send(connection, Node("iq", {"type": "error", **attrs}, [error]))
    else:
        board.send(connection, Node("iq", {"type": "result", **attrs}, content or None))
        if namespace == "passive" and node.child("active"):
            board.activate(connection)


def _describe(node: Node) -> str:
    child = node.children[0].tag if node.children else ""
    return f"{node.text('xmlns')} {node.text('type')} <{child}>"


def _is_muted(board: Switchboard, connection: Connection) -> bool:
    device = connection.device
    return board.faults.take("mute_pings", device.account.phone if device else None) is not None


def _ping(board: Switchboard, connection: Connection, node: Node) -> Answer:
    board.statistics.pings += 1
    return []


def _nothing(board: Switchboard, connection: Connection, node: Node) -> Answer:
    return []


def _linked_devices(board: Switchboard, connection: Connection, node: Node) -> Answer:
    """`md`: the client logs itself out. Nothing else of the namespace is known."""
    device = connection.device
    removal = node.child("remove-companion-device")
    if device is None or removal is None:
        board.statistics.note_unknown(_describe(node))
        raise not_implemented()
    wanted = removal.jid("jid")
    removed = board.registry.device(wanted) if wanted else None
    if removed is None or removed.account is not device.account:
        raise RequestFailed(404, "item-not-found")
    device_lists.announce_removal(board, removed)
    board.registry.unlink(removed)
    other, removed.connection = removed.connection, None
    if removed is device and board.faults.take("end_logouts", device.account.phone) is not None:
        connection.end_stream(device_removed())
    elif removed is device:
        connection.retire()
    elif other is not None:
        other.end_stream(device_removed())
    return []


_PRIVACY = {
    "readreceipts": "all",
    "last": "all",
    "status": "all",
    "profile": "all",
    "groupadd": "all",
    "online": "all",
    "calladd": "all",
}


def _privacy(board: Switchboard, connection: Connection, node: Node) -> Answer:
    categories = [
        Node("category", {"name": name, "value": value}) for name, value in _PRIVACY.items()
    ]
    return [Node("privacy", {}, categories)]


def _properties(board: Switchboard, connection: Connection, node: Node) -> Answer:
    """Server-side switches of the client's behaviour: none is changed."""
    return [Node("props", {"hash": "sandbox", "refresh": "86400"}, [])]


def _blocklist(board: Switchboard, connection: Connection, node: Node) -> Answer:
    return [Node("list", {"dhash": "0"}, [])]


_PING_NAMESPACES = ("w:p", "urn:xmpp:ping")

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
