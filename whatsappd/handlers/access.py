"""Access control: applies the access rules to every call, in one place.

`rpc.exchange` calls `allow` before each handler runs. Which companies a method is about is part of
its declaration (`api.declaration.Concerns`); handlers that answer about several call `readable`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import structlog

from whatsappd.api.declaration import Concerns
from whatsappd.errors import Denied, Revoked
from whatsappd.handlers.auditing import company_of, line_of, subject_of
from whatsappd.model.access import AccessRule, KeyScope
from whatsappd.model.api_key import ApiKey
from whatsappd.model.audit import AuditRecord
from whatsappd.rpc.method import Call, Method
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.rules.access import Rights, refusal, rights_of
from whatsappd.rules.bounds import Holder

log = structlog.get_logger()

#: The names of actors that are API keys begin with this.
KEY = "key:"
#: How many callers' rights are remembered, and how many refusals count as logged.
_REMEMBERED = 1000


class AccessControl:
    """Decides about each call by the access rules in force.

    Args:
        owner: the uid that the daemon runs as.
        find_key: the API key of an id, if there is one.
        record: takes the audit trail's line about a call that is denied.
    """

    def __init__(
        self,
        owner: int,
        find_key: Callable[[str], ApiKey | None] = lambda _identity: None,
        record: Callable[[AuditRecord], None] = lambda _line: None,
    ) -> None:
        self._owner = owner
        self._find_key = find_key
        self._record = record
        self._rules: Collection[AccessRule] = ()
        self._earlier: Collection[AccessRule] = ()
        self._rights: dict[tuple[int, int, frozenset[int]], Rights] = {}
        self._told: set[tuple[int, str]] = set()

    def use(self, rules: Collection[AccessRule]) -> None:
        """Decide by these rules from now on."""
        self._earlier, self._rules = self._rules, rules
        self._rights.clear()
        self._told.clear()

    def rights(self, peer: Peer) -> Rights:
        who = peer[1:]
        known = self._rights.get(who)
        if known is None:
            known = self._by(self._rules, peer)
            if len(self._rights) >= _REMEMBERED:
                self._rights.clear()
            self._rights[who] = known
        return known

    def admit(self, peer: Peer) -> None:
        """Check that a peer may connect at all (see `rpc.server.serve_rpc`).

        Raises:
            Denied: no rule names its user or one of the user's groups.
        """
        if self.rights(peer).is_nothing:
            raise self._denied(peer, None, "connect", None, write=False)

    def is_ours(self, peer: Peer) -> bool:
        """Whether a peer is root or the user that the daemon runs as."""
        return peer.uid in (0, self._owner)

    def owner_of(self, call: Call) -> str | None:
        """The owner of what a call makes: `key:ID`, `uid:1000`; None: root or our own user."""
        if call.actor is not None and call.actor.startswith(KEY):
            return call.actor
        return None if self.is_ours(call.peer) else f"uid:{call.peer.uid}"

    def holder_of(self, call: Call) -> Holder:
        """Whose places in `rules.bounds` a call takes.

        The gateway calls for many and bounds each of them itself, so it has no share of its own.
        """
        is_ours = self.is_ours(call.peer)
        is_capped = not is_ours and call.actor is None
        return Holder(f"uid:{call.peer.uid}", is_capped=is_capped, may_use_kept=is_ours)

    def may_link(self, call: Call, company: str) -> bool:
        """Whether a caller may see the company's QR codes; whoever scans one gets its messages.

        The caller needs the right to act for the company; an API key also needs the scope admin.
        """
        linkable = self.linkable(call)
        return linkable is None or company in linkable

    def linkable(self, call: Call) -> frozenset[str] | None:
        """The companies whose QR codes a caller may see; None: all."""
        writing = self.rights(call.peer).writing
        key = self._key_of(call)
        if key is None:
            return writing
        if key.scope is not KeyScope.ADMIN:
            return frozenset()
        if key.companies is None:
            return writing
        return frozenset(key.companies) if writing is None else writing & set(key.companies)

    def _key_of(self, call: Call) -> ApiKey | None:
        """The API key in whose name a call is made; None if it is not made in a key's name."""
        actor = call.actor
        if actor is None or not actor.startswith(KEY):
            return None
        return self._find_key(actor.removeprefix(KEY))

    def may_read(self, call: Call, company: str) -> bool:
        return self.rights(call.peer).may(company, write=False)

    def took_from(self, peer: Peer) -> bool:
        """Whether the last change of the rules took anything from that peer."""
        return not self.rights(peer).cover(self._by(self._earlier, peer))

    def _by(self, rules: Collection[AccessRule], peer: Peer) -> Rights:
        return rights_of(rules, uid=peer.uid, gids=peer.groups | {peer.gid}, owner=self._owner)

    def readable(
        self, call: Call, what: str, named: Iterable[str] | None = None
    ) -> frozenset[str] | None:
        """The companies to answer about: `named`, or else all that the caller may read.

        Returns None if these are all companies.

        Raises:
            Denied: the caller may not read one of `named`.
        """
        if named is None:
            return self.rights(call.peer).reading
        for company in named:
            self.require(call, what, company, write=False)
        return frozenset(named)

    def allow(self, call: Call, method: Method, arguments: Any) -> None:
        """See `rpc.exchange.Allow`.

        Raises:
            Denied: the rules do not let this caller do it; the message says which rule would.
            Revoked: the call is made in the name of an API key that is unknown or was revoked.
        """
        actor = call.actor
        if actor is not None and actor.startswith(KEY) and self._key_of(call) is None:
            company, subject = company_of(arguments), subject_of(arguments)
            self._record(line_of(call.peer, actor, method.name, company, subject, "revoked"))
            raise Revoked("the API key is unknown or revoked")
        if not self._rules:
            return
        rights = self.rights(call.peer)
        if rights.is_full:
            return
        match method.concerns:
            case Concerns.COMPANY:
                self.require(call, method.name, arguments.company, write=method.writes)
            case Concerns.ALL if not rights.may_all(write=method.writes):
                raise self._denied(
                    call.peer, call.actor, method.name, None, write=method.writes, about=arguments
                )
            case _ if rights.is_nothing:
                raise self._denied(
                    call.peer, call.actor, method.name, None, write=method.writes, about=arguments
                )

    def require(self, call: Call, what: str, company: str, *, write: bool) -> None:
        """Check a right, for handlers that learn late which company a call is about.

        Raises:
            Denied: the rules do not let this caller do `what` for `company`.
        """
        if not self.rights(call.peer).may(company, write=write):
            raise self._denied(call.peer, call.actor, what, company, write=write)

    def _denied(
        self,
        peer: Peer,
        actor: str | None,
        what: str,
        company: str | None,
        *,
        write: bool,
        about: Any = None,
    ) -> Denied:
        if (peer.uid, what) not in self._told and len(self._told) < _REMEMBERED:
            # Once for each: a caller that is refused must not be able to fill the log.
            self._told.add((peer.uid, what))
            log.warning("denied", method=what, company=company, uid=peer.uid, pid=peer.pid)
        told_company = company[:100] if company is not None else company_of(about)
        self._record(line_of(peer, actor, what, told_company, subject_of(about), Denied.name))
        message = refusal(peer.uid, self.rights(peer), what, company, write=write)
        return Denied(message, uid=peer.uid, method=what, company=company)
