"""Named consumers of events: cursors that the daemon keeps, and whose they are.

A consumer belongs to whoever made it, and nobody else moves or forgets it. Its name begins with who
that is: `uid:1000:crm` for a user of the host, `key:ID:crm` for an API key. What root and the
daemon's own user make has the bare name, and they may also move and forget those of others, by
their whole names. Webhooks' cursors are among the consumers too; only deliveries move them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from whatsappd.errors import InvalidParams

WEBHOOK = "webhook:"
#: What begins a name that somebody gives, and nobody may choose.
RESERVED = ("key:", "uid:", WEBHOOK)
_OWNERS = ("key", "uid")
_NAME = re.compile(r"[A-Za-z0-9._:@-]{1,64}\Z")


class Consumer(NamedTuple):
    """A named cursor: `cursor` is the seq of the last event it acknowledged."""

    name: str
    cursor: int
    created_ms: int
    acked_ms: int


def validate_consumer(name: str) -> str:
    """Return `name` if a consumer may have it.

    Raises:
        InvalidParams: it may not.
    """
    if _NAME.match(name):
        return name
    raise InvalidParams(
        f"consumer: {name!r:.80} is no consumer's name: use 1 to 64 characters of "
        "A-Z, a-z, 0-9 and '._:@-'",
        field="consumer",
    )


def is_webhook(name: str) -> bool:
    """Whether `name` is the name of a webhook's cursor."""
    return name.startswith(WEBHOOK)


def own_name(owner: str, name: str) -> str:
    """The full name of the consumer that `owner` (`uid:1000`, `key:ID`) calls `name`."""
    return f"{owner}:{name}"


def owner_of(name: str) -> str | None:
    """The owner of a consumer, such as `uid:1000` or `key:ID`.

    None: it belongs to root, to the daemon's own user, or to a webhook.
    """
    kind, _, rest = name.partition(":")
    identity, colon, _ = rest.partition(":")
    return f"{kind}:{identity}" if colon and kind in _OWNERS else None
