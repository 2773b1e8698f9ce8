"""Names of consumers, and whose they are.

Somebody's own consumers have a name that begins with who that is: users without full rights
(`uid:1000:crm`, given by `api.events`) and API keys that are bound to companies (`key:ID:crm`,
given by the gateway). Webhooks' cursors are among them too. All other names everybody shares who
may do everything.
"""

from __future__ import annotations

WEBHOOK = "webhook:"
#: What begins a name that somebody gives, and nobody may choose.
RESERVED = ("key:", "uid:", WEBHOOK)
_OWNERS = ("key", "uid")


def is_webhook(name: str) -> bool:
    """Whether that is the name of a webhook's cursor."""
    return name.startswith(WEBHOOK)


def own_name(owner: str, name: str) -> str:
    """What `owner`, such as `uid:1000` or `key:ID`, has under `name`."""
    return f"{owner}:{name}"


def owner_of(name: str) -> str | None:
    """Whose own that is, such as `uid:1000` or `key:ID`; None: everybody's, or a webhook's."""
    kind, _, rest = name.partition(":")
    identity, colon, _ = rest.partition(":")
    return f"{kind}:{identity}" if colon and kind in _OWNERS else None
