"""API keys in memory: their form, who has which, and the check of what a caller shows.

The gateway keeps nothing of its own; it asks the daemon (`key.check`) about each key it is shown.
All keys are held here, since there are few and every request may ask; the stores' key rings
remember them. A key is `wak_ID_SECRET`: the id is public (it stands in logs and in the audit
trail), the secret is 32 random bytes.

Only the SHA-256 of a key is kept. A slow hash (scrypt, Argon2) defends short secrets that people
choose against guessing; nobody can guess 256 random bits, however fast the hash is, and a slow one
would let strangers spend our time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from whatsappd.errors import Denied, InvalidParams, UnknownKey
from whatsappd.model.access import KeyScope
from whatsappd.model.api_key import ApiKey

#: Marks a key for what it is, so that scanners of repositories and logs can find one that leaked.
PREFIX = "wak_"
#: Each is somebody's; more of them is a script gone wrong.
MAX_KEYS = 1000
MAX_NAME = 100

_ALPHABET = string.ascii_lowercase + string.digits
_ID_LENGTH = 8
_FORM = re.compile(rf"{PREFIX}([a-z0-9]{{{_ID_LENGTH}}})_[A-Za-z0-9_-]{{43}}\Z")

_REFUSED = "the API key is unknown or revoked: `whatsappctl keys list` shows which there are"


class KnownKey(NamedTuple):
    key: ApiKey
    digest: bytes


class KeyBook:
    """All keys. What changes them tells it once that is stored."""

    def __init__(self, known: Mapping[str, KnownKey], clock: Callable[[], int]) -> None:
        self._known = dict(known)
        self._clock = clock
        self._used: dict[str, int] = {}  # what is not stored yet
        self._followers: list[Callable[[str], object]] = []

    def follow(self, follower: Callable[[str], object]) -> Callable[[], None]:
        """See `store.port.KeyRing.follow`."""
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)

    def find(self, identity: str) -> ApiKey | None:
        found = self._known.get(identity)
        return None if found is None else found.key

    def get(self, identity: str) -> ApiKey:
        """Raises UnknownKey."""
        found = self._known.get(identity)
        if found is None:
            raise UnknownKey(
                f"there is no key {identity!r:.40}: `whatsappctl keys list` shows their ids",
                id=identity[:40],
            )
        return found.key

    def list_all(self) -> list[ApiKey]:
        """Every key, the oldest first."""
        keys = [self._fresh(each.key) for each in self._known.values()]
        return sorted(keys, key=lambda key: (key.created_ms, key.id))

    def new(
        self, name: str, scope: KeyScope, companies: tuple[str, ...] | None
    ) -> tuple[KnownKey, str]:
        """A key that nobody has, and its text; `add` it once it is stored. Raises InvalidParams."""
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidParams(
                f"name: must be 1 to {MAX_NAME} printable characters: say whose key it is",
                field="name",
            )
        if len(self._known) >= MAX_KEYS:
            raise InvalidParams(
                f"name: there are {MAX_KEYS} keys already: revoke those that nobody uses",
                field="name",
            )
        identity = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        text = f"{PREFIX}{identity}_{secrets.token_urlsafe(32)}"
        key = ApiKey(identity, name, scope, companies, self._clock(), None)
        return KnownKey(key, _digest(text)), text

    def add(self, made: KnownKey) -> None:
        self._known[made.key.id] = made

    def deleted(self, identities: Iterable[str]) -> None:
        """These keys are stored no more: nobody gets in with them, and what they have going on
        ends."""
        for identity in identities:
            self._known.pop(identity, None)
            self._used.pop(identity, None)
            self._tell(identity)

    def narrowed(self, identity: str, companies: tuple[str, ...]) -> None:
        """The key is for these companies only. Followers are told as of a revoked one, so that
        whoever came in with it is asked anew. Nothing happens if it is gone."""
        known = self._known.get(identity)
        if known is not None:
            key = known.key._replace(companies=companies)
            self._known[identity] = known._replace(key=key)
            self._tell(identity)

    def check(self, text: str) -> ApiKey:
        """Whose key that is; remembers that it was used. Raises Denied."""
        form = _FORM.match(text)
        found = self._known.get(form[1]) if form else None
        # The same work whether or not the id exists; what it exists as is no secret, but free.
        expected = found.digest if found else bytes(32)
        if not hmac.compare_digest(_digest(text), expected) or found is None:
            raise Denied(_REFUSED)
        self._used[found.key.id] = self._clock()
        return self._fresh(found.key)

    def take_used(self) -> dict[str, int]:
        """When keys were last used, as far as that is to be stored; from now on it counts as
        stored."""
        used, self._used = self._used, {}
        for identity, time_ms in used.items():
            known = self._known[identity]
            self._known[identity] = known._replace(key=known.key._replace(last_used_ms=time_ms))
        return used

    def _fresh(self, key: ApiKey) -> ApiKey:
        used = self._used.get(key.id)
        return key if used is None else key._replace(last_used_ms=used)

    def _tell(self, identity: str) -> None:
        for follower in list(self._followers):
            follower(identity)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
