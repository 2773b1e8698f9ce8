"""Groups: made and left by members (`w:g2`), and shown to them.

Messages to a group are in `messages`. Members are addressed by LID, as in all new groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whatsappd.model.jid import LID_SERVER, Jid
from whatsappd.sandbox.protocol.stanza import Attrs, Node
from whatsappd.sandbox.protocol.violations import RequestFailed, not_implemented
from whatsappd.sandbox.state.accounts import Account, Device
from whatsappd.sandbox.state.groups import Group
from whatsappd.sandbox.state.switchboard import now

if TYPE_CHECKING:
    from whatsappd.sandbox.server.connection import Connection
    from whatsappd.sandbox.state.switchboard import Switchboard


def answer_get(board: Switchboard, connection: Connection, node: Node) -> list[Node]:
    """`<query>`: one group; `<participating>`: all of the client's."""
    account = _account(connection)
    if node.child("participating"):
        groups = [_group_node(board, group) for group in board.groups.of(account)]
        return [Node("groups", {}, groups)]
    if node.child("query"):
        return [_group_node(board, _membership(board, account, node.jid("to")))]
    raise not_implemented()


def answer_set(board: Switchboard, connection: Connection, node: Node) -> list[Node]:
    """`<create subject>` and `<leave>`."""
    account = _account(connection)
    if create := node.child("create"):
        return [_create(board, connection, account, create)]
    if leave := node.child("leave"):
        left = []
        for item in leave.children:
            group = _membership(board, account, item.jid("id"))
            board.groups.leave(group, account)
            _notify(board, group, account, Node("remove", {}, [_participant(account, group)]))
            left.append(Node("group", {"id": group.jid}))
        return [Node("leave", {}, left)]
    raise not_implemented()


def _create(board: Switchboard, connection: Connection, account: Account, create: Node) -> Node:
    others = []
    unknown = []
    for item in create.children:
        jid = item.jid("jid")
        if item.tag != "participant" or jid is None:
            continue
        other = board.registry.find(jid)
        if other is None:
            unknown.append(Node("participant", {"jid": jid, "error": "404"}))
        else:
            others.append(other)
    group = board.groups.create(create.text("subject"), account, others)
    shown = _group_node(board, group)
    change = Node("create", {"type": "new", "key": create.text("key")}, [shown])
    _notify(board, group, account, change, except_for=connection.device)
    return shown._replace(content=[*shown.children, *unknown])


def _notify(
    board: Switchboard,
    group: Group,
    by: Account,
    change: Node,
    *,
    except_for: Device | None = None,
) -> None:
    for device in board.groups.devices(group):
        if device is not except_for:
            attrs: Attrs = {
                "from": group.jid,
                "type": "w:gp2",
                "id": board.next_id(),
                "t": now(),
                "participant": by.lid,
                "participant_pn": by.jid,
                "addressing_mode": LID_SERVER,
                "notify": by.shown_name,
            }
            board.deliver(device, Node("notification", attrs, [change]))


def _account(connection: Connection) -> Account:
    assert connection.device is not None
    return connection.device.account


def _membership(board: Switchboard, account: Account, jid: Jid | None) -> Group:
    group = board.groups.find(jid) if jid else None
    if group is None:
        raise RequestFailed(404, "item-not-found")
    if account.phone not in group.members:
        raise RequestFailed(403, "forbidden")
    return group


def _group_node(board: Switchboard, group: Group) -> Node:
    creator = board.registry.by_phone(group.creator)
    members = board.groups.accounts(group)
    attrs: Attrs = {
        "id": group.id,
        "subject": group.subject,
        "s_t": str(group.created),
        "creation": str(group.created),
        "addressing_mode": LID_SERVER,
        "size": str(len(members)),
    }
    if creator is not None:
        attrs |= {
            "creator": creator.lid,
            "creator_pn": creator.jid,
            "s_o": creator.lid,
            "s_o_pn": creator.jid,
        }
    return Node("group", attrs, [_participant(member, group) for member in members])


def _participant(account: Account, group: Group) -> Node:
    attrs: Attrs = {"jid": account.lid, "phone_number": account.jid}
    if account.phone == group.creator:
        attrs["type"] = "superadmin"
    return Node("participant", attrs)
