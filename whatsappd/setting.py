"""How a part of the daemon declares a setting: a field of its own structure says all about it.

    class QueueSettings(Struct, frozen=True):
        limit: Annotated[
            int, setting("queue.limit", "Messages that may wait per company.", ge=1, le=1_000_000)
        ] = 10_000

The name that people write, the meaning, the range and whether a reload may change it stand in the
annotation (a `msgspec.Meta`); the type and the default are the field's. `config` gathers the
structures of all parts, reads values for them, and explains them; the part gets its structure.

A field without `setting` is the part's own: nobody can set it, but tests may.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from msgspec import Meta

_KEY = "setting"


class WrittenAs(Enum):
    """How people write a value whose type does not tell it."""

    SECONDS = "a duration; the value is in seconds"
    MILLISECONDS = "a duration; the value is in milliseconds"
    BYTES = "a size; the value is in bytes"
    PERMISSIONS = "permissions of a file, in octal"
    GROUP = "a group of the host, by its name or number; may be empty"
    REDIS_URL = "the URL of a Redis; may be empty"


class HostDefault(NamedTuple):
    """A default that depends on the host's user, and on whether a sandbox is used.

    `value` is given whether one is; it raises InvalidParams if this user has no default.
    """

    value: Callable[[bool], Path]
    words: str  # for the reference


class Declared(NamedTuple):
    """What `setting` was told, but for the range and the meaning, which `Meta` has."""

    key: str
    written_as: WrittenAs | None
    is_live: bool
    host_default: HostDefault | None


def setting(
    key: str,
    meaning: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    written_as: WrittenAs | None = None,
    live: bool = False,
    default: HostDefault | None = None,
) -> Meta:
    """The annotation of a field that people can set.

    Args:
        key: as it is written: `log_level`, or with its section `limits.redis_url`.
        meaning: a sentence or two, for the sample file and the reference.
        ge: the least value, in the value's own unit.
        le: the greatest one.
        written_as: for what is more than a number, a text, a path or a choice.
        live: whether a reload applies it; else the daemon must be restarted.
        default: for a field that has none of its own.
    """
    declared = Declared(key, written_as, live, default)
    return Meta(ge=ge, le=le, description=meaning, extra={_KEY: declared})


def declared_by(meta: object) -> Declared | None:
    """What `setting` declared with this annotation; None if it is another annotation."""
    if not isinstance(meta, Meta) or meta.extra is None:
        return None
    found = meta.extra.get(_KEY)
    return found if isinstance(found, Declared) else None
