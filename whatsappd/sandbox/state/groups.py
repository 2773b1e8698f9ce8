"""The groups that exist, and who is in them; `groups` answers the requests about them."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass

from whatsappd.model.jid import GROUP_SERVER, Jid
from whatsappd.sandbox.state.accounts import Account, Device, Registry
from whatsappd.sandbox.state.store import Store

#: Ids of groups begin like this, and have 18 digits.
_ID_START = 120363 * 10**12


@dataclass(eq=False)
class Group:
    """A group. `members` are phones in the order in which they joined."""

    id: str
    subject: str
    creator: str  # a phone
    created: int  # seconds since the epoch
    members: list[str]

    @property
    def jid(self) -> Jid:
        return Jid(self.id, GROUP_SERVER)


class Groups:
    """All groups, in memory and in the store."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._groups: dict[str, Group] = {}
        for number, subject, creator, created, members in store.read(
            "SELECT id, subject, creator, created, participants FROM peer_group"
        ):
            self._groups[number] = Group(number, subject, creator, created, json.loads(members))

    def find(self, jid: Jid) -> Group | None:
        return self._groups.get(jid.user) if jid.server == GROUP_SERVER else None

    def of(self, account: Account) -> list[Group]:
        return [group for group in self._groups.values() if account.phone in group.members]

    def create(self, subject: str, creator: Account, others: list[Account]) -> Group:
        number = self._new_id()
        members = list(dict.fromkeys([creator.phone, *(other.phone for other in others)]))
        group = Group(number, subject, creator.phone, int(time.time()), members)
        self._groups[number] = group
        self._store.write(
            "INSERT INTO peer_group VALUES (?, ?, ?, ?, ?)",
            *(number, subject, creator.phone, group.created, json.dumps(members)),
        )
        return group

    def _new_id(self) -> str:
        while True:
            number = str(_ID_START + random.randrange(10**12))
            if number not in self._groups:
                return number

    def leave(self, group: Group, account: Account) -> None:
        group.members.remove(account.phone)
        self._store.write(
            "UPDATE peer_group SET participants = ? WHERE id = ?",
            *(json.dumps(group.members), group.id),
        )

    def accounts(self, group: Group) -> list[Account]:
        found = (self._registry.by_phone(phone) for phone in group.members)
        return [account for account in found if account is not None]

    def devices(self, group: Group) -> list[Device]:
        """The devices of all members."""
        return [device for account in self.accounts(group) for device in account.devices.values()]
