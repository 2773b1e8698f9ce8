"""Where a Redis server is and how to log in there, read once from the URL that somebody wrote.

`config` refuses what cannot be read here, and `limits.redis` connects to what this returned. The
URL is read by us because a password may hold any character: `redis-py`-like parsers take a raw `/`
or `#` in it for the end of the host, and show parts of the password in their complaints.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from whatsappd.errors import InvalidParams

SCHEMES = ("redis", "rediss", "unix")
DEFAULT_PORT = 6379
#: Redis numbers its databases; servers allow 16 unless configured otherwise.
MAX_DATABASE = 9999

#: Characters of a password that may be shown where a text merely begins like it.
_SHOWN_AT_MOST = 4

_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]+))?"
)


class RedisAddress(NamedTuple):
    """A server and a login.

    Args:
        socket: path of the server's Unix socket; then `host` and `port` do not count.
        password: as the server wants it, without any escapes; None: no login.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    socket: str | None = None
    tls: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = None

    @property
    def shown(self) -> str:
        """The address without the login, for people."""
        if self.socket is not None:
            return f"unix://{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"

    def hide(self, text: str) -> str:
        """`text`, for example a server's complaint, without the password, and without what a
        server that cuts what it repeats left of it."""
        if not self.password:
            return text
        for length in range(len(self.password), min(len(self.password), _SHOWN_AT_MOST), -1):
            text = text.replace(self.password[:length], "***")
        return text.replace(self.password, "***")


def parse_redis_url(url: str) -> RedisAddress:
    """Read `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, `rediss://` for TLS, or
    `unix://[USER[:PASSWORD]@]/PATH[?db=DATABASE]`.

    The login ends at the last `@`, so user and password may hold any character. `%XX` in them is
    decoded, as in every URL; a `%` that begins no such escape is taken as it is.

    Raises:
        InvalidParams: it cannot be read. The message shows no part of the login.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise _wrong(f"begin it with {', '.join(f'{each}://' for each in SCHEMES)}")
    login, at, place = rest.rpartition("@")
    username, password = _login(login) if at else (None, None)
    place, question, query = place.partition("?")
    database = _database_in(query) if question else None
    if scheme == "unix":
        if not place.startswith("/") or "\0" in place or len(place) < 2:
            raise _wrong("write unix:///PATH/OF/THE/SOCKET")
        return RedisAddress(
            socket=_text(place), database=database or 0, username=username, password=password
        )
    where, slash, path = place.partition("/")
    found = _HOST.fullmatch(where)
    if found is None:
        raise _wrong("write redis://HOST:PORT, with the login, if any, before an @")
    port = int((found["port"] or "")[:6] or DEFAULT_PORT)
    if not 1 <= port <= 65535:
        raise _wrong("the port is a number from 1 to 65535")
    if slash and path:
        if database is not None:
            raise _wrong("name the database once: /N or ?db=N")
        database = _number(path)
    return RedisAddress(
        host=found["v6"] or found["name"],
        port=port,
        tls=scheme == "rediss",
        database=database or 0,
        username=username,
        password=password,
    )


def _login(login: str) -> tuple[str | None, str | None]:
    name, colon, password = login.partition(":")
    if not colon:
        # What redis-cli and others do with a single word: a user without a password makes no login.
        raise _wrong("write a login as USER:PASSWORD@, or :PASSWORD@ without a user")
    return _text(name) or None, _text(password) or None


def _text(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise _wrong("its %XX escapes are no UTF-8") from error


def _database_in(query: str) -> int:
    name, _, value = query.partition("=")
    if name != "db":
        raise _wrong("the only option behind the ? is db=NUMBER")
    return _number(value)


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text):
        raise _wrong(f"the database is a number from 0 to {MAX_DATABASE}")
    return int(text)


def _wrong(reason: str) -> InvalidParams:
    return InvalidParams(f"redis_url: {reason}", field="redis_url")
