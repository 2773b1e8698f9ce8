"""API keys: who may come in through the gateway, and what for.

The gateway keeps nothing of its own; it asks the daemon (`key.check`) about each key it is shown.
All keys are held in memory, since there are few and every request may ask; the table remembers
them. A key is `wak_ID_SECRET`: the id is public (it stands in logs and in the audit trail), the
secret is 32 random bytes.

Only the SHA-256 of a key is stored. A slow hash (scrypt, Argon2) defends short secrets that people
choose against guessing; nobody can guess 256 random bits, however fast the hash is, and a slow one
would let strangers spend our time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import string
from collections.abc import Callable, Iterable

import structlog
import trio

from whatsappd.clock import now_ms
from whatsappd.errors import Denied, InvalidParams, StoreFailed, UnknownKey
from whatsappd.model.access import KeyScope
from whatsappd.model.api_key import ApiKey
from whatsappd.model.audit import AuditNote
from whatsappd.store.sqlite import consumers, webhooks
from whatsappd.store.sqlite.audit import insert_note
from whatsappd.store.sqlite.database import Database

log = structlog.get_logger()

#: Marks a key for what it is, so that scanners of repositories and logs can find one that leaked.
PREFIX = "wak_"
#: Each is somebody's; more of them is a script gone wrong.
MAX_KEYS = 1000
MAX_NAME = 100
#: Seconds between writes of when keys were last used: a request must not cost a write.
LAST_USED_EVERY_S = 60.0

_ALPHABET = string.ascii_lowercase + string.digits
_ID_LENGTH = 8
_FORM = re.compile(rf"{PREFIX}([a-z0-9]{{{_ID_LENGTH}}})_[A-Za-z0-9_-]{{43}}\Z")

_REFUSED = "the API key is unknown or revoked: `whatsappctl keys list` shows which there are"


class SqliteKeyRing:
    """All keys. Made by `open_keys`, once per database; `run` is started by the root."""

    def __init__(
        self,
        database: Database,
        known: dict[str, tuple[ApiKey, bytes]],
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._known = known
        self._clock = clock
        self._used: dict[str, int] = {}  # what the table does not know yet
        self._followers: list[Callable[[str], object]] = []

    def follow(self, follower: Callable[[str], object]) -> Callable[[], None]:
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)

    def find(self, identity: str) -> ApiKey | None:
        found = self._known.get(identity)
        return None if found is None else found[0]

    async def list_all(self) -> list[ApiKey]:
        await trio.lowlevel.checkpoint()
        keys = [self._fresh(key) for key, _ in self._known.values()]
        return sorted(keys, key=lambda key: (key.created_ms, key.id))

    async def create(
        self,
        name: str,
        scope: KeyScope,
        companies: tuple[str, ...] | None,
        note: AuditNote | None = None,
    ) -> tuple[ApiKey, str]:
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
        digest = _digest(text)

        def write(conn: sqlite3.Connection) -> None:
            conn.execute(
                "INSERT INTO api_keys (id, name, scope, companies, created_ms, digest)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (identity, name, str(scope), _companies_json(companies), key.created_ms, digest),
            )
            insert_note(conn, note, identity)

        def known(_done: None) -> None:
            self._known[identity] = key, digest

        await self._database.write(write, known)
        return key, text

    async def revoke(self, identity: str, note: AuditNote | None = None) -> ApiKey:
        found = self._known.get(identity)
        if found is None:
            raise UnknownKey(
                f"there is no key {identity!r:.40}: `whatsappctl keys list` shows their ids",
                id=identity[:40],
            )

        def write(conn: sqlite3.Connection) -> None:
            delete(conn, identity)
            insert_note(conn, note, identity)

        # On disk first: a key that was reported revoked must not come back with the next start.
        await self._database.write(write, lambda _done: self.deleted([identity]))
        return found[0]

    def deleted(self, identities: Iterable[str]) -> None:
        """These keys are gone from the disk (`delete`): nobody gets in with them any more, and what
        they have going on ends. For the `then` of the write that deleted them."""
        for identity in identities:
            self._known.pop(identity, None)
            self._used.pop(identity, None)
            for follower in list(self._followers):
                follower(identity)

    async def narrow(self, identity: str, companies: tuple[str, ...]) -> None:
        """From now on the key is for these companies only. Nothing happens if it is gone.

        Followers are told as of a revoked one, so that whoever came in with it is asked anew.
        """

        def write(conn: sqlite3.Connection) -> None:
            conn.execute(
                "UPDATE api_keys SET companies = ? WHERE id = ?",
                (_companies_json(companies), identity),
            )

        def known(_done: None) -> None:
            if identity in self._known:
                key, digest = self._known[identity]
                self._known[identity] = key._replace(companies=companies), digest
                for follower in list(self._followers):
                    follower(identity)

        await self._database.write(write, known)

    async def check(self, text: str) -> ApiKey:
        await trio.lowlevel.checkpoint()
        form = _FORM.match(text)
        found = self._known.get(form[1]) if form else None
        # The same work whether or not the id exists; what it exists as is no secret, but free.
        expected = found[1] if found else bytes(32)
        if not hmac.compare_digest(_digest(text), expected) or found is None:
            raise Denied(_REFUSED)
        key = found[0]
        self._used[key.id] = self._clock()
        return self._fresh(key)

    async def run(self) -> None:
        try:
            while True:
                await trio.sleep(LAST_USED_EVERY_S)
                await self._write_used()
        finally:
            with trio.move_on_after(2, shield=True):
                await self._write_used()

    def _fresh(self, key: ApiKey) -> ApiKey:
        used = self._used.get(key.id)
        return key if used is None else key._replace(last_used_ms=used)

    async def _write_used(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        for identity, time_ms in used.items():
            if identity in self._known:
                key, digest = self._known[identity]
                self._known[identity] = key._replace(last_used_ms=time_ms), digest

        def write(conn: sqlite3.Connection) -> None:
            conn.executemany(
                "UPDATE api_keys SET last_used_ms = ? WHERE id = ?",
                [(time_ms, identity) for identity, time_ms in used.items()],
            )

        try:
            await self._database.write(write)
        except StoreFailed as error:
            log.warning("key_use_not_stored", reason=error.message)


def delete(conn: sqlite3.Connection, identity: str) -> None:
    """Delete a key with what was its own, in a function given to `Database.write`."""
    owner = f"key:{identity}"
    conn.execute("DELETE FROM api_keys WHERE id = ?", (identity,))
    consumers.forget_own(conn, owner)
    webhooks.end_owner(conn, owner)


def delete_only_for(conn: sqlite3.Connection, company: str) -> list[str]:
    """Delete the keys that are good for that company and for nothing else; their ids.

    As `delete`; tell `Keys.deleted` once it is on the disk.
    """
    found = conn.execute(
        "SELECT id FROM api_keys WHERE companies = ?", (_companies_json((company,)),)
    ).fetchall()
    for (identity,) in found:
        delete(conn, identity)
    return [identity for (identity,) in found]


async def open_keys(database: Database, *, clock: Callable[[], int] = now_ms) -> SqliteKeyRing:
    """The keys of `database`."""
    return SqliteKeyRing(database, await database.read(_load), clock)


def _load(conn: sqlite3.Connection) -> dict[str, tuple[ApiKey, bytes]]:
    rows = conn.execute(
        "SELECT id, name, scope, companies, created_ms, last_used_ms, digest FROM api_keys"
    )
    return {
        identity: (
            ApiKey(
                identity, name, KeyScope(scope), _companies(companies), created_ms, last_used_ms
            ),
            digest,
        )
        for identity, name, scope, companies, created_ms, last_used_ms, digest in rows
    }


def _companies(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(json.loads(text))


def _companies_json(companies: tuple[str, ...] | None) -> str | None:
    return None if companies is None else json.dumps(companies)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
