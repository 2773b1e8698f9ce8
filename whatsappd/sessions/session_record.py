"""The stored facts of one session: whether it is wanted, its identity, and its account.

A change is stored first and holds then, so that it survives a restart of the daemon.
"""

from __future__ import annotations

import structlog

from whatsappd.errors import StoreFailed
from whatsappd.sessions.identity import SessionIdentity
from whatsappd.store.port import Companies, StoredCompany

log = structlog.get_logger()


class SessionRecord:
    """The stored facts of one session, kept in memory too."""

    def __init__(
        self, known: StoredCompany, companies: Companies, last_inbound_ms: int | None = None
    ) -> None:
        #: When something arrived from WhatsApp last, in epoch milliseconds.
        self.last_inbound_ms = last_inbound_ms
        self.company = known.company
        self._companies = companies
        self._wanted = known.wanted
        self._identity = SessionIdentity(known.jid, known.lid, known.push_name)
        self._account = known.account if known.claimed else None

    @property
    def wanted(self) -> bool:
        """Whether it should be running, also after a reboot."""
        return self._wanted

    @property
    def identity(self) -> SessionIdentity:
        return self._identity

    @property
    def is_linked(self) -> bool:
        """Whether it has an account on WhatsApp, as far as is known."""
        return self._identity.jid is not None

    @property
    def account(self) -> str | None:
        """The JID of the account that the company is bound to; see `rules.account_binding`."""
        return self._account

    def note_wanted(self) -> None:
        """Note that the session is wanted; the caller has stored that."""
        self._wanted = True

    async def unwant(self) -> None:
        """Store that the session is not to be started again by itself.

        Raises:
            StoreFailed: it is still wanted.
        """
        await self._companies.put_unwanted(self.company)
        self._wanted = False

    def note_account(self, account: str) -> None:
        """Note that `account` is the company's own; the store has recorded that."""
        self._account = account

    async def leave_account(self) -> None:
        """Unbind the company from its account, so that it may be linked with another one.

        Raises:
            StoreFailed: the company is still bound to it.
        """
        await self._companies.leave_account(self.company)
        self._account = None

    async def give_account_up(self) -> None:
        """Let other companies use the account.

        Raises:
            StoreFailed: the account still belongs to this company.
        """
        await self._companies.give_account_up(self.company)
        self._account = None

    async def identify(self, identity: SessionIdentity) -> None:
        """Take a new identity. If the store fails, it holds until the daemon restarts.

        The next worker tells it again then.
        """
        self._identity = identity
        try:
            await self._companies.put_identity(self.company, **identity._asdict())
        except StoreFailed as error:
            log.error("identity_not_stored", company=self.company, reason=error.message)
