"""Who may call what: the access rules, applied to every call in one place.

`rpc.connection` asks `allow` before each handler runs. What a method concerns is declared beside
its handler (`rpc.method.Concerns`); handlers that answer about several companies ask `readable`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import structlog

from whatsappd.errors import Denied, Revoked
from whatsappd.model.access import AccessRule
from whatsappd.rpc.method import Call, Concerns, Method
from whatsappd.rpc.peer import Peer
from whatsappd.rules.access import Rights, refusal, rights_of

log = structlog.get_logger()

#: What the name of an actor begins with that is an API key.
KEY = "key:"
#: Distinct callers whose rights, and refusals whose telling, are remembered.
_REMEMBERED = 1000


class AccessControl:
    """The rules in force.

    Args:
        owner: the uid that the daemon runs as.
        knows_key: whether there is an API key of that id.
    """

    def __init__(
        self, owner: int, knows_key: Callable[[str], bool] = lambda _identity: True
    ) -> None:
        self._owner = owner
        self._knows_key = knows_key
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
        """See `rpc.server.serve_rpc`: whether that peer may connect at all.

        Raises:
            Denied: no rule names its user or one of their groups.
        """
        if self.rights(peer).is_nothing:
            raise self._denied(peer, "connect", None, write=False)

    def is_ours(self, peer: Peer) -> bool:
        """Whether that is root, or the user that the daemon runs as."""
        return peer.uid in (0, self._owner)

    def owner_of(self, call: Call) -> str | None:
        """Whose that is what a call makes: `key:ID` or `uid:1000`; None: root's and our own."""
        if call.actor is not None and call.actor.startswith(KEY):
            return call.actor
        return None if self.is_ours(call.peer) else f"uid:{call.peer.uid}"

    def may_link(self, call: Call, company: str) -> bool:
        """Whether a caller may see the company's QR codes: who scans one owns its messages."""
        return self.rights(call.peer).may(company, write=True)

    def linkable(self, call: Call) -> frozenset[str] | None:
        """The companies whose QR codes a caller may see; None: all."""
        return self.rights(call.peer).writing

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
        """The companies to answer about: those that were named, else all that a caller may read;
        None: all there are.

        Raises:
            Denied: one of `named` is none that the caller may read.
        """
        if named is None:
            return self.rights(call.peer).reading
        for company in named:
            self.require(call, what, company, write=False)
        return frozenset(named)

    def allow(self, call: Call, method: Method, arguments: Any) -> None:
        """See `rpc.connection.Allow`.

        Raises:
            Denied: the rules do not let this caller do it; the message says which rule would.
            Revoked: the call is made in the name of an API key that there is not (any more).
        """
        actor = call.actor
        is_key = actor is not None and actor.startswith(KEY)
        if actor is not None and is_key and not self._knows_key(actor.removeprefix(KEY)):
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
                raise self._denied(call.peer, method.name, None, write=method.writes)
            case _ if rights.is_nothing:
                raise self._denied(call.peer, method.name, None, write=method.writes)

    def require(self, call: Call, what: str, company: str, *, write: bool) -> None:
        """For handlers that learn late which company a call concerns.

        Raises:
            Denied: the rules do not let this caller do `what` for `company`.
        """
        if not self.rights(call.peer).may(company, write=write):
            raise self._denied(call.peer, what, company, write=write)

    def _denied(self, peer: Peer, what: str, company: str | None, *, write: bool) -> Denied:
        if (peer.uid, what) not in self._told and len(self._told) < _REMEMBERED:
            # Once for each: a caller that is refused must not be able to fill the log.
            self._told.add((peer.uid, what))
            log.warning("denied", method=what, company=company, uid=peer.uid, pid=peer.pid)
        message = refusal(peer.uid, self.rights(peer), what, company, write=write)
        return Denied(message, uid=peer.uid, method=what, company=company)
