"""How people write values: numbers, durations, sizes, and what is wrong with one that is not.

`format_of` finds the format of a setting from its type and its annotation; `load` parses with it,
`reference` and `whatsappd check` print with it. A format reads TOML values strictly (a number in
quotes is a mistake), and texts from the environment and the command line as people write them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, get_origin

from msgspec import Meta

from whatsappd.config.quoting import masked, quoted
from whatsappd.errors import InvalidParams
from whatsappd.model.redis_address import parse_redis_url
from whatsappd.setting import WrittenAs
from whatsappd.working_directory import from_start


class BadValue(ValueError):
    """A value is not of its format; the text says what is accepted, and what to write instead."""


class ValueFormat(Protocol):
    """One way to write a value."""

    @property
    def accepts(self) -> str:
        """What can be written, as the end of the sentence "write …"."""
        ...

    @property
    def span(self) -> str:
        """The same, as short as it can be, for a list of settings; empty if there is no limit."""
        ...

    def from_text(self, text: str) -> Any:
        """The value for a text from the environment or the command line. Raises BadValue."""
        ...

    def from_toml(self, value: Any) -> Any:
        """The value for what tomllib made of the file. Raises BadValue."""
        ...

    def as_toml(self, value: Any) -> str:
        """`value` as somebody would write it in the file. Secrets are masked."""
        ...


class Count(NamedTuple):
    """A whole number of something."""

    low: int
    high: int

    @property
    def accepts(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    @property
    def span(self) -> str:
        return f"{self.low} to {self.high}"

    def from_text(self, text: str) -> int:
        text = text.strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise BadValue("is no whole number")
        return self._checked(int(text))

    def from_toml(self, value: Any) -> int:
        if isinstance(value, str):
            raise BadValue("is a text: remove the quotes")
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadValue("is no whole number")
        return self._checked(value)

    def as_toml(self, value: int) -> str:
        return str(value)

    def _checked(self, value: int) -> int:
        if not self.low <= value <= self.high:
            raise BadValue("is out of range")
        return value


_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DIGITS = r"[0-9]{1,18}(?:\.[0-9]{1,18})?"
_NUMBER = re.compile(_DIGITS)
_DURATION = re.compile(rf"({_DIGITS})\s*(ms|s|m|h|d)\s*")


class Duration(NamedTuple):
    """A time span. Values are seconds, or with `in_ms` whole milliseconds; so are the bounds.

    A number without a unit is seconds to whoever writes it.
    """

    low: float
    high: float
    in_ms: bool = False

    @property
    def accepts(self) -> str:
        return f'a duration from {self.span}, such as "90s", "5m", "1h30m" or "7d"'

    @property
    def span(self) -> str:
        return f"{self._written(self.low)} to {self._written(self.high)}"

    def from_text(self, text: str) -> float:
        return self._checked(_seconds(text))

    def from_toml(self, value: Any) -> float:
        if isinstance(value, str):
            return self.from_text(value)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or (isinstance(value, float) and not math.isfinite(value)):
            raise BadValue("is no duration")
        return self._checked(value)

    def as_toml(self, value: float) -> str:
        return f'"{self._written(value)}"'

    def _written(self, value: float) -> str:
        milliseconds = round(value if self.in_ms else value * 1000)
        for unit, seconds in reversed(_DURATION_UNITS.items()):
            size = round(seconds * 1000)
            if milliseconds and milliseconds % size == 0:
                return f"{milliseconds // size}{unit}"
        return "0s"

    def _checked(self, seconds: float) -> float:
        per_second = 1000 if self.in_ms else 1
        if not self.low <= seconds * per_second <= self.high:
            raise BadValue("is out of range")
        return round(seconds * 1000) if self.in_ms else float(seconds)


def _seconds(text: str) -> float:
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    total, place = 0.0, 0
    while match := _DURATION.match(text, place):
        total += float(match[1]) * _DURATION_UNITS[match[2]]
        place = match.end()
    if not text or place != len(text):
        raise BadValue("is no duration")
    return total


_SIZE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
    "TB": 10**12,
    "TiB": 2**40,
}
_SIZE = re.compile(rf"({_DIGITS})\s*([A-Za-z]*)")


class Size(NamedTuple):
    """An amount of bytes."""

    low: int
    high: int

    @property
    def accepts(self) -> str:
        return f'a size from {self.span}, such as "512MB" or "1GiB", or bytes'

    @property
    def span(self) -> str:
        return f"{self._written(self.low)} to {self._written(self.high)}"

    def from_text(self, text: str) -> int:
        return self._checked(_bytes(text))

    def from_toml(self, value: Any) -> int:
        if isinstance(value, str):
            return self.from_text(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValue("is no size")
        return self._checked(value)

    def as_toml(self, value: int) -> str:
        return f'"{self._written(value)}"'

    def _written(self, value: int) -> str:
        for unit, size in sorted(_SIZE_UNITS.items(), key=lambda each: -each[1]):
            if value and value % size == 0:
                return f"{value // size}{unit}"
        return "0B"

    def _checked(self, value: int) -> int:
        if not self.low <= value <= self.high:
            raise BadValue("is out of range")
        return value


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    units = {unit.lower(): size for unit, size in _SIZE_UNITS.items()} | {"": 1}
    if match is None or match[2].lower() not in units:
        raise BadValue("is no size")
    return round(float(match[1]) * units[match[2].lower()])


class Choice(NamedTuple):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def accepts(self) -> str:
        return f"one of {', '.join(self.words)}"

    @property
    def span(self) -> str:
        return ", ".join(self.words)

    def from_text(self, text: str) -> str:
        return self.from_toml(text.strip())

    def from_toml(self, value: Any) -> str:
        if value not in self.words:
            raise BadValue("is none of the choices")
        return str(value)

    def as_toml(self, value: str) -> str:
        return quoted(value)


class FilePath(NamedTuple):
    """A path; a relative one is taken from where the daemon is started."""

    @property
    def accepts(self) -> str:
        return "a path"

    @property
    def span(self) -> str:
        return ""

    def from_text(self, text: str) -> Path:
        return self.from_toml(text)

    def from_toml(self, value: Any) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise BadValue("is no path")
        try:
            return from_start(Path(value).expanduser())
        except RuntimeError as error:  # ~name, of a user that does not exist or has no home
            raise BadValue(f"is no path ({error})") from error
        except OSError as error:
            raise BadValue(
                f"is no absolute path, and the working directory is gone ({error.strerror})"
            ) from error

    def as_toml(self, value: Path) -> str:
        return quoted(str(value))


class Permissions(NamedTuple):
    """The permissions of a file, in octal."""

    low: int
    high: int

    @property
    def accepts(self) -> str:
        return f'octal permissions from "{self.low:04o}" to "{self.high:04o}", such as "0660"'

    @property
    def span(self) -> str:
        return f"{self.low:04o} to {self.high:04o}"

    def from_text(self, text: str) -> int:
        text = text.strip()
        if not re.fullmatch(r"(0o)?[0-7]{3,4}", text):
            raise BadValue("are no octal permissions")
        return self._checked(int(text, 8))

    def from_toml(self, value: Any) -> int:
        if isinstance(value, str):
            return self.from_text(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValue("are no octal permissions")
        return self._checked(value)

    def as_toml(self, value: int) -> str:
        return f'"{value:04o}"'

    def _checked(self, value: int) -> int:
        # Decimal 660, a frequent slip, is octal 1224 and ends here too.
        if not self.low <= value <= self.high:
            raise BadValue("are no permissions of a socket")
        return value


class GroupName(NamedTuple):
    """The name of a group of the host, or its number; or empty."""

    @property
    def accepts(self) -> str:
        return "a group's name or number; empty for none"

    @property
    def span(self) -> str:
        return ""

    def from_text(self, text: str) -> str:
        return self.from_toml(text.strip())

    def from_toml(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return str(value)
        if not isinstance(value, str) or re.search(r"[\s:/\0]", value):
            raise BadValue("is no group")
        return value

    def as_toml(self, value: str) -> str:
        return quoted(value)


class RedisUrl(NamedTuple):
    """Where a Redis is, with a login; or empty. The value is the text, which was read once."""

    @property
    def accepts(self) -> str:
        return "a URL such as redis://:PASSWORD@HOST:6379/0, rediss://… or unix:///PATH"

    @property
    def span(self) -> str:
        return "redis://, rediss://, unix://"

    def from_text(self, text: str) -> str:
        return self.from_toml(text.strip())

    def from_toml(self, value: Any) -> str:
        if not isinstance(value, str):
            raise BadValue("is no URL")
        if value:
            try:
                parse_redis_url(value)
            except InvalidParams as error:
                raise BadValue(f"is no URL of a Redis ({error.message})") from None
        return value

    def as_toml(self, value: str) -> str:
        return quoted(masked(value))


def format_of(value_type: Any, meta: Meta, written_as: WrittenAs | None) -> ValueFormat:
    """How values of a setting are written: by its type, its range, and what it declares."""
    low, high = meta.ge, meta.le
    match written_as:
        case WrittenAs.GROUP:
            return GroupName()
        case WrittenAs.REDIS_URL:
            return RedisUrl()
        case None if get_origin(value_type) is Literal:
            return Choice(get_args(value_type))
        case None if value_type is Path:
            return FilePath()
    assert low is not None, "a number has a range"
    assert high is not None
    match written_as:
        case WrittenAs.SECONDS:
            return Duration(low, high)
        case WrittenAs.MILLISECONDS:
            return Duration(low, high, in_ms=True)
        case WrittenAs.BYTES:
            return Size(int(low), int(high))
        case WrittenAs.PERMISSIONS:
            return Permissions(int(low), int(high))
    assert value_type is int, value_type
    return Count(int(low), int(high))
