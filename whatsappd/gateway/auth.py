"""Tells who sends a request and what they may do: by API keys, or by a class of the user's own.

`admission` asks an `Authenticator` before anything else of a request is looked at. To add a scheme
(mTLS, OIDC, a signed header of your proxy), write another class with `identify`, and give it to
`run.run_gateway`, as the manual shows (`gateway.md`).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

import structlog
import trio

from whatsappd.api.declaration import Declaration
from whatsappd.api.keys import CHECK, CheckKey, KeyInfo
from whatsappd.errors import Denied, InvalidParams, WhatsappdError
from whatsappd.gateway.problem_details import HttpError, unauthenticated
from whatsappd.model.consumer import RESERVED, own_name
from whatsappd.model.event import EVENT_TYPES, SESSION_QR
from whatsappd.rules.client_address import address_of, network_of

log = structlog.get_logger()

READ, SEND, ADMIN = "read", "send", "admin"
_RANK = {READ: 0, SEND: 1, ADMIN: 2}

#: Seconds for which a key that was good is believed: what a revocation may take.
BELIEVED_FOR = 3.0
MAX_BELIEVED = 10_000
#: Wrong keys from one address in that many seconds; then those that are wrong are answered 429.
MAX_FAILURES = 10
FAILURE_PERIOD = 60.0
MAX_ADDRESSES = 10_000
#: Keys of one address that the daemon is asked about at the same time. It takes half a millisecond
#: for each, and the link has places for a hundred: a flood of wrong keys leaves others their turn.
MAX_ASKING = 8
#: What a key looks like: its public id, and its secret.
_KEY = re.compile(r"wak_([A-Za-z0-9]{8})_[A-Za-z0-9_-]{20,200}")

#: In a WebSocket's Sec-WebSocket-Protocol, for browsers, which cannot set Authorization there.
SUBPROTOCOL = "whatsappd.v1"
SUBPROTOCOL_KEY = "bearer."


class Identity(NamedTuple):
    """Somebody who came in. `companies` None: all of them."""

    actor: str  # for the audit trail: `key:ID`
    name: str
    scope: str
    companies: frozenset[str] | None

    def check_scope(self, needed: str) -> None:
        """Raises Denied if that scope is not included."""
        if _RANK[self.scope] < _RANK[needed]:
            raise Denied(
                f"this key's scope is {self.scope}; {needed} is needed for that",
                scope=self.scope,
                needed=needed,
            )

    def check_company(self, company: str) -> None:
        """Raises Denied if the key is not for that company."""
        if self.companies is not None and company not in self.companies:
            raise Denied(f"this key is not for the company {company}", company=company)

    def among(self, asked: list[str] | None) -> list[str] | None:
        """The companies to look at when `asked` were named (None: all that may be seen).

        Raises:
            Denied: one of those that were named is not for this key.
        """
        for company in asked or ():
            self.check_company(company)
        if asked:
            return asked
        return None if self.companies is None else sorted(self.companies)

    @property
    def sees_codes(self) -> bool:
        """Whether it may see QR codes: whoever scans one gets all of the account's messages."""
        return self.scope == ADMIN

    def types(self, asked: list[str] | None) -> list[str] | None:
        """The types of events to look at when `asked` were named (None: all that may be seen).

        Raises:
            Denied: one of those that were named is not for this scope.
        """
        if self.sees_codes:
            return asked or None
        if SESSION_QR in (asked or ()):
            raise Denied(f"{SESSION_QR}: QR codes are for keys of scope admin", field="type")
        return asked or [name for name in EVENT_TYPES if name != SESSION_QR]

    def consumer(self, name: str) -> str:
        """What to call a consumer towards the daemon, which gives each API key names of its own.

        Raises:
            InvalidParams: it could be somebody else's own, or a webhook's.
        """
        if name.startswith(RESERVED):
            raise InvalidParams(
                f"consumer: {name!r:.80} begins as the daemon's own names do "
                f"({', '.join(RESERVED)}): take another name",
                field="consumer",
            )
        if self.actor.startswith("key:") or self is ANYBODY:
            return name
        return own_name(self.actor, name)  # of another scheme, which the daemon does not know


#: Who comes in with --no-auth.
ANYBODY = Identity("anonymous", "anonymous", ADMIN, None)


class Authenticator(Protocol):
    async def identify(self, headers: Mapping[str, str], address: str) -> Identity:
        """Who sends these headers (names in lower case) from that address.

        Called for each request, and again now and then while a stream lasts.

        Raises:
            HttpError: 401, or 429 after too many failures.
            WhatsappdError: nobody can tell just now (503).
        """


class NoAuthentication:
    """Everybody may do everything: on loopback, when somebody said so."""

    async def identify(self, _headers: Mapping[str, str], _address: str) -> Identity:
        return ANYBODY


class _Check:
    """One question to the daemon; `trouble`: why there was no answer for those who wait for it."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.trouble: WhatsappdError | None = None


class KeyLink(Protocol):
    """The way to the daemon, as far as keys go; `DaemonLink` is one."""

    def on_revoked(self, forget: Callable[[str], None], /) -> None:
        """Call `forget` with the actor, `key:ID`, when a key is revoked."""
        ...

    async def ask(self, method: Declaration[CheckKey, KeyInfo], params: CheckKey, /) -> KeyInfo:
        """Call the daemon; see `DaemonLink.ask`."""
        ...


class ApiKeys:
    """`Authorization: Bearer wak_…`, checked by the daemon.

    A good key always comes in, whatever else its address has shown: behind a proxy, or on one host,
    an address is shared with strangers, who must not be able to shut anybody out. Nothing is lost
    by that: a key holds 256 random bits, which nobody guesses at any pace, and to look one up costs
    the daemon a hash. What has to be bounded is the work, and that is: see MAX_ASKING.
    """

    def __init__(self, link: KeyLink) -> None:
        self._link = link
        # By digest, so that no dump of this process's memory from here holds keys.
        self._believed: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        self._checking: dict[bytes, _Check] = {}
        self._failures = Failures()
        self._asking: dict[str, trio.CapacityLimiter] = {}  # by address
        link.on_revoked(self._forget)

    def _forget(self, actor: str) -> None:
        """A key was revoked: nobody is believed for it any more."""
        for digest, (identity, _) in list(self._believed.items()):
            if identity.actor == actor:
                del self._believed[digest]

    async def identify(self, headers: Mapping[str, str], address: str) -> Identity:
        key = presented_key(headers)
        if key is None:
            raise unauthenticated("send an API key: Authorization: Bearer wak_…")
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        while True:
            found = self._believed.get(digest)
            if found is not None and trio.current_time() < found[1]:
                return found[0]
            checking = self._checking.get(digest)
            if checking is None:
                break
            # A thousand streams of one key ask at the same moment: one of them asks the daemon.
            await checking.ended.wait()
            if checking.trouble is not None:
                raise checking.trouble.afresh()
        if _KEY.fullmatch(key) is None:
            raise self._wrong(address)
        checking = self._checking[digest] = _Check()
        try:
            async with self._turn(address):
                checked = await self._link.ask(CHECK, CheckKey(key=key))
        except Denied as error:
            self._believed.pop(digest, None)
            raise self._wrong(address) from error
        except WhatsappdError as error:
            checking.trouble = error
            raise
        finally:
            del self._checking[digest]
            checking.ended.set()
        companies = None if checked.companies is None else frozenset(checked.companies)
        identity = Identity(f"key:{checked.id}", checked.name, checked.scope.value, companies)
        self._believed[digest] = identity, trio.current_time() + BELIEVED_FOR
        self._believed.move_to_end(digest)
        if len(self._believed) > MAX_BELIEVED:
            self._believed.popitem(last=False)
        return identity

    @asynccontextmanager
    async def _turn(self, address: str) -> AsyncIterator[None]:
        """The turn of an address to ask the daemon, first come, first served."""
        name = _network(address)
        turns = self._asking.setdefault(name, trio.CapacityLimiter(MAX_ASKING))
        try:
            async with turns:
                yield
        finally:
            if not turns.borrowed_tokens and not turns.statistics().tasks_waiting:
                self._asking.pop(name, None)

    def _wrong(self, address: str) -> HttpError:
        wait = self._failures.wait(address)
        self._failures.add(address)
        if not wait:
            return unauthenticated("the API key is unknown or revoked")
        return HttpError(
            429,
            "too_many_failures",
            f"too many wrong keys came from your address: try again in {wait} s",
            headers={"Retry-After": str(wait)},
        )


def presented_key(headers: Mapping[str, str]) -> str | None:
    """The key of a request, wherever it stands."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    for offered in headers.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(SUBPROTOCOL_KEY):
            return offered.strip().removeprefix(SUBPROTOCOL_KEY)
    return None


class Failures:
    """Wrong keys by address, bounded: the one that failed longest ago is forgotten first. Each time
    counts for FAILURE_PERIOD seconds."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, list[float]] = OrderedDict()

    def add(self, address: str) -> None:
        name = _network(address)
        times = self._times.setdefault(name, [])
        if len(times) >= MAX_FAILURES and self.wait(address):
            return  # the wait is not made longer
        times.append(trio.current_time())
        del times[:-MAX_FAILURES]
        self._times.move_to_end(name)
        if len(self._times) > MAX_ADDRESSES:
            self._times.popitem(last=False)

    def wait(self, address: str) -> int:
        """Whole seconds until that address may try again; 0: now."""
        times = self._times.get(_network(address), [])
        if len(times) < MAX_FAILURES:
            return 0
        return max(0, math.ceil(times[0] + FAILURE_PERIOD - trio.current_time()))


def _network(text: str) -> str:
    """What is counted as one address."""
    address = address_of(text)
    return text[:64] if address is None else network_of(address)
