"""Groups (`w:g2`): members create and leave them, and ask for their members.

    <iq type=get xmlns=w:g2 to=GROUP><query/>          one group, with its members
    <iq type=get xmlns=w:g2><participating/>           all groups of the client's account
    <iq type=set xmlns=w:g2><create subject><participant jid/>…</create>
    <iq type=set xmlns=w:g2><leave><group id/>…</leave>

All members are told of changes (`<notification type=w:gp2>`). Members are addressed by LID, as in
all new groups. Messages to a group are in `messages`. whatsmeow: group.go.
"""

from __future__ import annotations

from whatsappd.model.jid import LID_SERVER, Jid
from whatsappd.sandbox.protocol.node import Attrs, Node
from whatsappd.sandbox.protocol.violations import RequestFailed, not_implemented
from whatsappd.sandbox.state.accounts import LinkedDevice, SandboxAccount
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.groups import SandboxGroup
from whatsappd.sandbox.state.switchboard import Switchboard


def answer_get(board: Switchboard, client: ConnectedClient, node: Node) -> list[Node]:
    """Answer `<query>` or `<participating>`.

    Raises:
        RequestFailed: it is something else, or the account is no member of the group.
    """
    account = _account(client)
    if node.child("participating"):
        groups = [_group_node(board, group) for group in board.groups.of(account)]
        return [Node("groups", {}, groups)]
    if node.child("query"):
        return [_group_node(board, _membership(board, account, node.jid("to")))]
    raise not_implemented()


def answer_set(board: Switchboard, client: ConnectedClient, node: Node) -> list[Node]:
    """Do `<create>` or `<leave>`.

    Raises:
        RequestFailed: it is something else, or the account is no member of a group to leave.
    """
    account = _account(client)
    if create := node.child("create"):
        return [_create(board, client, account, create)]
    if leave := node.child("leave"):
        left = []
        for item in leave.children:
            group = _membership(board, account, item.jid("id"))
            board.groups.leave(group, account)
            _notify(board, group, account, Node("remove", {}, [_participant(account, group)]))
            left.append(Node("group", {"id": group.jid}))
        return [Node("leave", {}, left)]
    raise not_implemented()


def _create(
    board: Switchboard, client: ConnectedClient, account: SandboxAccount, create: Node
) -> Node:
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
    _notify(board, group, account, change, except_for=client.device)
    return shown._replace(content=[*shown.children, *unknown])


def _notify(
    board: Switchboard,
    group: SandboxGroup,
    by: SandboxAccount,
    change: Node,
    *,
    except_for: LinkedDevice | None = None,
) -> None:
    attrs: Attrs = {
        "from": group.jid,
        "type": "w:gp2",
        "participant": by.lid,
        "participant_pn": by.jid,
        "addressing_mode": LID_SERVER,
        "notify": by.shown_name,
    }
    for device in board.groups.devices(group):
        if device is not except_for:
            board.notify(device, attrs, [change])


def _account(client: ConnectedClient) -> SandboxAccount:
    assert client.device is not None
    return client.device.account


def _membership(board: Switchboard, account: SandboxAccount, jid: Jid | None) -> SandboxGroup:
    group = board.groups.find(jid) if jid else None
    if group is None:
        raise RequestFailed(404, "item-not-found")
    if account.phone not in group.members:
        raise RequestFailed(403, "forbidden")
    return group


def _group_node(board: Switchboard, group: SandboxGroup) -> Node:
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


def _participant(account: SandboxAccount, group: SandboxGroup) -> Node:
    attrs: Attrs = {"jid": account.lid, "phone_number": account.jid}
    if account.phone == group.creator:
        attrs["type"] = "superadmin"
    return Node("participant", attrs)
