"""The memory twin's companies, whom they know, and what arrives for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from whatsappd.errors import UnknownCompany
from whatsappd.model.arrival import Arrival
from whatsappd.model.event import MESSAGE_TYPES, Draft
from whatsappd.model.jid import LID_SERVER
from whatsappd.model.message import OutboxState
from whatsappd.model.person import with_both_identities
from whatsappd.rules.account_binding import BoundAccount, Standing, is_same, standing
from whatsappd.store.memory.outbox_changes import MemoryOutboxChanges
from whatsappd.store.memory.tables import KnownPerson, MemoryTables
from whatsappd.store.port import AccountClaim, StoredCompany


class MemoryAcquaintances:
    """See `store.port.Acquaintances`."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables
        self._followers: list[Callable[[str], object]] = []

    async def strangers(self, company: str, chats: Collection[str]) -> set[str]:
        async with self._tables.reading("strangers"):
            return {chat for chat in chats if (company, chat) not in self._tables.people}

    async def add(self, company: str, chats: Collection[str]) -> None:
        async with self._tables.writing("add"):
            is_changed = self.learn(company, chats)
        if is_changed:
            self.tell(company)

    def follow(self, follower: Callable[[str], object]) -> None:
        self._followers.append(follower)

    def learn(self, company: str, chats: Collection[str]) -> bool:
        """In a transaction: these are no strangers any more; whether that is new."""
        new = [chat for chat in chats if (company, chat) not in self._tables.people]
        for chat in new:
            self._tables.people[company, chat] = KnownPerson(self._tables.clock())
        return bool(new)

    def tell(self, company: str) -> None:
        """The company knows somebody new, or others than before."""
        for follower in self._followers:
            follower(company)


class MemoryInbound:
    """See `store.port.Inbound`."""

    def __init__(
        self, tables: MemoryTables, changes: MemoryOutboxChanges, people: MemoryAcquaintances
    ) -> None:
        self._tables = tables
        self._changes = changes
        self._people = people

    async def taken(self, company: str) -> int:
        async with self._tables.reading("taken"):
            return self._tables.taken.get(company, (0, 0))[0]

    async def last_ms(self, company: str) -> int | None:
        async with self._tables.reading("last_ms"):
            found = self._tables.taken.get(company)
            return None if found is None else found[1]

    async def take(self, company: str, arrivals: Sequence[Arrival]) -> None:
        now = self._tables.clock()
        async with self._tables.writing("take"):
            taken = self._tables.taken.get(company, (0, 0))[0]
            fresh = [each for each in arrivals if each.number is None or each.number > taken]
            new = dict(each.identity for each in arrivals if each.identity is not None)
            for each in fresh:
                if each.draft is not None:
                    self._tables.log(self._identified(each.draft, new))
            for lid, number in new.items():
                if self._tables.aliases.get((company, lid), ("", 0))[0] != number:
                    self._changes.readdress(company, lid, number)
            for each in fresh:
                if each.receipt is not None:
                    self._changes.receipt(company, each.receipt.message_ids, each.receipt.kind)
                if each.asked_again is not None:
                    self._changes.asked_again(company, *each.asked_again)
            is_new = self._people.learn(company, {one for each in arrivals for one in each.people})
            writers = {one for each in arrivals for one in each.writers}
            for one in writers & {chat for whose, chat in self._tables.people if whose == company}:
                known = self._tables.people[company, one]
                self._tables.people[company, one] = known._replace(wrote_ms=now)
            self._changes.answers(company, writers)
            last = max((each.number or 0 for each in fresh), default=0)
            if last > taken:
                self._tables.taken[company] = (last, now)
        if is_new:
            self._people.tell(company)

    def _identified(self, draft: Draft, new: Mapping[str, str]) -> Draft:
        """The draft, with both identities of each person whom the company knows by both."""
        if draft.type not in MESSAGE_TYPES:
            return draft
        known = {
            address: account
            for (company, address), (account, _) in self._tables.aliases.items()
            if company == draft.company and not account.endswith(f"@{LID_SERVER}")
        } | dict(new)
        lids = {number: lid for lid, number in known.items() if lid.endswith(f"@{LID_SERVER}")}

        def other(jid: str) -> str | None:
            return known.get(jid) if jid.endswith(f"@{LID_SERVER}") else lids.get(jid)

        return draft._replace(data=with_both_identities(draft.data, other))


class MemoryCompanies:
    """See `store.port.Companies`."""

    def __init__(self, tables: MemoryTables, people: MemoryAcquaintances) -> None:
        self._tables = tables
        self._people = people

    async def all(self) -> list[StoredCompany]:
        async with self._tables.reading("all"):
            return [self._tables.companies[name] for name in sorted(self._tables.companies)]

    async def get(self, company: str) -> StoredCompany:
        async with self._tables.reading("get"):
            return self._get(company)

    def _get(self, company: str) -> StoredCompany:
        found = self._tables.companies.get(company)
        if found is None:
            raise UnknownCompany(
                f"there is no company {company!r}: `whatsappctl start {company}` makes it",
                company=company,
            )
        return found

    async def put_wanted(self, company: str, wanted: bool) -> StoredCompany:
        async with self._tables.writing("put_wanted"):
            made = StoredCompany(
                company, wanted, self._tables.clock(), {}, *(None,) * 6, claimed=False
            )
            known = self._tables.companies.get(company, made)
            return self._put(known._replace(wanted=wanted))

    def _put(self, company: StoredCompany) -> StoredCompany:
        self._tables.companies[company.company] = company
        return company

    async def _change(self, operation: str, company: str, **changes: Any) -> StoredCompany:
        async with self._tables.writing(operation):
            return self._put(self._get(company)._replace(**changes))

    async def put_unwanted(self, company: str) -> StoredCompany:
        return await self._change("put_unwanted", company, wanted=False)

    async def put_identity(
        self, company: str, *, jid: str | None, lid: str | None, push_name: str | None
    ) -> StoredCompany:
        return await self._change("put_identity", company, jid=jid, lid=lid, push_name=push_name)

    async def put_connected(self, company: str, time_ms: int) -> StoredCompany:
        return await self._change("put_connected", company, last_connected_ms=time_ms)

    async def settings(self, company: str) -> dict[str, Any]:
        return (await self.get(company)).settings

    async def put_settings(
        self,
        company: str,
        changes: Mapping[str, Any],
        then: Callable[[dict[str, Any]], object] | None = None,
    ) -> dict[str, Any]:
        async with self._tables.writing("put_settings"):
            known = self._get(company)
            merged = {**known.settings, **changes}
            kept = {name: value for name, value in merged.items() if value is not None}
            self._put(known._replace(settings=kept))
        if then is not None:
            then(kept)
        return kept

    async def look_at_account(self, company: str, linked: BoundAccount) -> AccountClaim:
        async with self._tables.reading("look_at_account"):
            return self._look(company, linked)

    def _look(self, company: str, linked: BoundAccount) -> AccountClaim:
        known, owner = self._get(company), None
        for other in self._tables.companies.values():
            is_its = other.account == linked.jid is not None or (
                other.account_lid == linked.lid is not None
            )
            if other.claimed and other.company != company and is_its:
                owner = other.company
        waiting = any(
            row.company == company and row.state in (OutboxState.QUEUED, OutboxState.SENDING)
            for row in self._tables.rows.values()
        )
        found = standing(
            known.bound, linked, claimed=known.claimed, owner=owner, has_waiting=waiting
        )
        return AccountClaim(found, owner, known.bound)

    async def claim_account(self, company: str, linked: BoundAccount) -> AccountClaim:
        async with self._tables.writing("claim_account"):
            found = self._look(company, linked)
            if found.standing is not Standing.OURS:
                return found
            before, lid = found.bound, linked.lid
            is_new = before is None or not is_same(before, linked)
            if is_new:
                self._put_away(company, before)
                self._bring_back(company, linked)
            elif before is not None:
                lid = lid or before.lid
            claimed = self._get(company)._replace(account=linked.jid, account_lid=lid, claimed=True)
            self._put(claimed)
        if is_new:
            self._people.tell(company)
        return found

    async def give_account_up(self, company: str) -> None:
        await self._change("give_account_up", company, claimed=False)

    async def leave_account(self, company: str) -> StoredCompany:
        async with self._tables.writing("leave_account"):
            known = self._get(company)
            self._put_away(company, known.bound)
            left = self._put(known._replace(account=None, account_lid=None, claimed=False))
        self._people.tell(company)
        return left

    def _put_away(self, company: str, account: BoundAccount | None) -> None:
        for (whose, chat), person in list(self._tables.people.items()):
            if account is not None and whose == company:
                self._tables.former_people[company, _name(account), chat] = person
                del self._tables.people[whose, chat]

    def _bring_back(self, company: str, account: BoundAccount) -> None:
        for (whose, former, chat), person in list(self._tables.former_people.items()):
            if (whose, former) == (company, _name(account)):
                self._tables.people[company, chat] = person
                del self._tables.former_people[whose, former, chat]


def _name(account: BoundAccount) -> str:
    return account.jid or account.lid or ""
