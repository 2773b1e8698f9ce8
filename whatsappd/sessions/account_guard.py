"""Checks that a session's worker is linked with the company's own account, and no other.

The session asks before it starts a worker, and again when the worker is connected. The rule is in
`rules.account_binding`. Each worker is identified by its generation.
"""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.engines.protocol import ClientConnected, DevicePaired
from whatsappd.errors import Malformed, StoreFailed
from whatsappd.rules import incidents
from whatsappd.rules.account_binding import Standing, bound_account
from whatsappd.rules.incidents import Incident, account_refused
from whatsappd.sessions.identity import SessionIdentity
from whatsappd.store.port import AccountClaim, Companies


class Admission(NamedTuple):
    """Whether a connected worker may go on, and what happens if it may not."""

    may_go_on: bool
    account: str | None = None  # the JID that was found to be the company's, if it was asked for
    incident: Incident | None = None
    takes_identity: bool = False  # what it told of itself is shown
    unlinks: bool = False  # the device is to be unlinked
    unlink_words: str | None = None  # and why, if it is not by a person's wish


class AccountGuard:
    """The check of one session's workers."""

    def __init__(self, company: str, companies: Companies) -> None:
        #: The worker is there only to unlink the device.
        self.is_unlinking = False
        self._company = company
        self._companies = companies
        self._paired = -1  # the generation of the worker that linked the account
        self._paired_jid: str | None = None  # of the device that it linked
        self._admitted = -1  # of the worker whose account was found to be the company's
        self._foreign = -1  # of the worker whose account is not: what it brings is not taken

    def is_foreign(self, generation: int) -> bool:
        """Whether a worker's account is known not to be the company's."""
        return generation == self._foreign

    async def look(self, identity: SessionIdentity, generation: int) -> Incident | None:
        """Why a worker may not be started with the linked account; None if it may.

        Raises:
            StoreFailed: the store does not say whose account it is.
        """
        if self.is_unlinking:
            self._foreign = generation
            return None
        if identity.jid is None:
            return None
        claim = await self._companies.look_at_account(
            self._company, bound_account(identity.jid, identity.lid)
        )
        return None if claim.standing is Standing.OURS else _held(claim, identity.jid)

    def paired(self, told: DevicePaired, generation: int) -> None:
        """A worker linked an account."""
        self._paired, self._paired_jid = generation, told.jid

    async def admit(
        self, told: ClientConnected, identity: SessionIdentity, generation: int
    ) -> Admission:
        """Whether a worker that is connected may go on, with the account that it has.

        Raises:
            Malformed: the worker gave an identity that is not valid.
        """
        if generation == self._admitted:
            return Admission(may_go_on=True)
        if self.is_unlinking:
            return Admission(may_go_on=False, unlinks=True)
        jid = told.jid or identity.jid or self._paired_jid
        if jid is None:
            words = "it is linked, and the account's own name for itself cannot be read"
            return Admission(may_go_on=False, incident=incidents.spawn_failed(words))
        try:
            linked = bound_account(jid, told.lid)
        except ValueError as error:
            raise Malformed(f"a worker is connected as nobody: {error}") from error
        try:
            claim = await self._companies.claim_account(self._company, linked)
        except StoreFailed as error:
            words = f"its account cannot be recorded: {error.message}"
            return Admission(may_go_on=False, incident=incidents.spawn_failed(words))
        if claim.standing is Standing.OURS:
            self._admitted = generation
            return Admission(may_go_on=True, account=linked.jid)
        self._foreign = generation
        if claim.standing is Standing.TAKEN and generation == self._paired:
            # It was linked by mistake a moment ago, so it does not stay linked.
            assert claim.owner is not None
            words = account_refused(linked.jid, claim.owner)
            return Admission(may_go_on=False, unlinks=True, unlink_words=words)
        return Admission(may_go_on=False, incident=_held(claim, linked.jid), takes_identity=True)


def _held(claim: AccountClaim, linked: str | None) -> Incident:
    if claim.standing is Standing.TAKEN:
        assert claim.owner is not None
        return incidents.account_taken(claim.owner)
    return incidents.other_account(linked, claim.bound and claim.bound.jid)
