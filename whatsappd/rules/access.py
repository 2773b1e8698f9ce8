"""What a user of the host may do, by the access rules in the settings.

Rules only grant rights, and the rights of several rules add up. Without any rule, everybody who can
open the socket may do everything. Root and the daemon's own user always may. Called by
`handlers.access`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from whatsappd.model.access import AccessRule, Subject


class Rights(NamedTuple):
    """The companies that somebody may look at, and those that they may act for; None: all.

    Rights to all companies include the daemon itself, which belongs to none.
    """

    reading: frozenset[str] | None
    writing: frozenset[str] | None

    @property
    def is_full(self) -> bool:
        return self.writing is None

    @property
    def is_nothing(self) -> bool:
        return self.reading is not None and not self.reading

    def may(self, company: str, *, write: bool) -> bool:
        granted = self.writing if write else self.reading
        return granted is None or company in granted

    def cover(self, others: Rights) -> bool:
        """Whether they are at least the `others`."""
        return all(
            own is None or (theirs is not None and theirs <= own)
            for own, theirs in zip(self, others, strict=True)
        )

    def may_all(self, *, write: bool) -> bool:
        """Whether they may do what concerns all companies, or the daemon itself."""
        return (self.writing if write else self.reading) is None


FULL = Rights(None, None)
NOTHING = Rights(frozenset(), frozenset())


def rights_of(
    rules: Collection[AccessRule], *, uid: int, gids: Collection[int], owner: int
) -> Rights:
    """The rights of a process.

    Args:
        uid, gids: the process's user, and all of its groups.
        owner: the uid that the daemon runs as.
    """
    if not rules or uid in (0, owner):
        return FULL
    own = [rule for rule in rules if _is_about(rule, uid, gids)]
    return Rights(
        reading=_union(rule.companies for rule in own),
        writing=_union(rule.companies for rule in own if not rule.read_only),
    )


def _is_about(rule: AccessRule, uid: int, gids: Collection[int]) -> bool:
    return rule.id == uid if rule.subject is Subject.USER else rule.id in gids


def _union(grants: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    united: frozenset[str] = frozenset()
    for companies in grants:
        if companies is None:
            return None
        united |= companies
    return united


def refusal(uid: int, rights: Rights, what: str, company: str | None, *, write: bool) -> str:
    """Why somebody may not do `what`, and the rule that would let them.

    Args:
        company: whom it concerns; None: all, or the daemon itself.
    """
    whom = f"for company {company}" if company is not None else "for all companies"
    if rights.is_nothing:
        why = f"no access rule names user {uid} or one of their groups"
    elif write and _reads(rights, company):
        why = f"user {uid} may only read {whom}"
    else:
        why = f"the access rules of user {uid} do not allow {what} {whom}"
    rule = [f"user = {uid}"]
    if company is not None:
        rule.append(f'companies = ["{company}"]')
    if not write:
        rule.append("read_only = true")
    return (
        f"{what}: {why}; to allow it, add [[access]] with {', '.join(rule)} to the daemon's "
        "configuration, and reload it"
    )


def _reads(rights: Rights, company: str | None) -> bool:
    return rights.may_all(write=False) if company is None else rights.may(company, write=False)
