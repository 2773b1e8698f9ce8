"""The groups of the sandbox and their members; `server.groups` answers requests about them."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass

from whatsappd.model.jid import GROUP_SERVER, Jid
from whatsappd.sandbox.state.accounts import LinkedDevice, SandboxAccount
from whatsappd.sandbox.state.database import SandboxDatabase
from whatsappd.sandbox.state.registry import AccountRegistry

#: The smallest id of a group: real ones have 18 digits and begin with 120363.
_ID_START = 120363 * 10**12


@dataclass(eq=False)
class SandboxGroup:
    """A group."""

    id: str  # the user part of its JID: 18 digits
    subject: str  # its name
    creator: str  # a phone number
    created: int  # seconds since the epoch
    members: list[str]  # phone numbers, in the order in which they joined

    @property
    def jid(self) -> Jid:
        """Its address: `120363…@g.us`."""
        return Jid(self.id, GROUP_SERVER)


class GroupRegistry:
    """All groups, in memory and in the database."""

    def __init__(self, database: SandboxDatabase, registry: AccountRegistry) -> None:
        self._database = database
        self._registry = registry
        self._groups: dict[str, SandboxGroup] = {}
        for number, subject, creator, created, members in database.read(
            "SELECT id, subject, creator, created, participants FROM peer_group"
        ):
            self._groups[number] = SandboxGroup(
                number, subject, creator, created, json.loads(members)
            )

    def find(self, jid: Jid) -> SandboxGroup | None:
        """The group with this JID, or None."""
        return self._groups.get(jid.user) if jid.server == GROUP_SERVER else None

    def of(self, account: SandboxAccount) -> list[SandboxGroup]:
        """The groups that an account is a member of."""
        return [group for group in self._groups.values() if account.phone in group.members]

    def create(
        self, subject: str, creator: SandboxAccount, others: list[SandboxAccount]
    ) -> SandboxGroup:
        """Make a group of its creator and `others`; who is named twice is a member once."""
        number = self._new_id()
        members = list(dict.fromkeys([creator.phone, *(other.phone for other in others)]))
        group = SandboxGroup(number, subject, creator.phone, int(time.time()), members)
        self._groups[number] = group
        self._database.write(
            "INSERT INTO peer_group VALUES (?, ?, ?, ?, ?)",
            *(number, subject, creator.phone, group.created, json.dumps(members)),
        )
        return group

    def _new_id(self) -> str:
        while True:
            number = str(_ID_START + random.randrange(10**12))
            if number not in self._groups:
                return number

    def leave(self, group: SandboxGroup, account: SandboxAccount) -> None:
        """Remove a member. Raises ValueError if it is none."""
        group.members.remove(account.phone)
        self._database.write(
            "UPDATE peer_group SET participants = ? WHERE id = ?",
            *(json.dumps(group.members), group.id),
        )

    def accounts(self, group: SandboxGroup) -> list[SandboxAccount]:
        """The accounts of a group's members."""
        found = (self._registry.by_phone(phone) for phone in group.members)
        return [account for account in found if account is not None]

    def devices(self, group: SandboxGroup) -> list[LinkedDevice]:
        """The linked devices of all members."""
        return [device for account in self.accounts(group) for device in account.devices.values()]
