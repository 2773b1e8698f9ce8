"""`key.*` and `daemon.audit`: who may come in through the gateway, and who did what."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from whatsappd.api.declaration import Declaration, Done, Examples, NoParams, Params, Result
from whatsappd.api.types import CompanyId, Seq, TimeMs
from whatsappd.model.access import KeyScope

#: Lines of one answer; each has at most some 500 bytes.
MAX_LINES = 1000


class CreateKey(Params):
    """What the key is to be good for."""

    examples: ClassVar[Examples] = ({"name": "shop", "scope": "send", "companies": ["acme"]},)

    name: Annotated[str, Meta(description="For people: who has it.", examples=["shop"])]
    scope: Annotated[
        KeyScope,
        Meta(
            description="`read`: sessions, messages and events. `send`: and sending. `admin`: and "
            "starting, configuring, linking and removing sessions."
        ),
    ]
    companies: Annotated[
        Annotated[list[CompanyId], Meta(max_length=1000)] | None,
        Meta(description="The companies that it is for; left out: all, future ones too."),
    ] = None


class OneKey(Params):
    id: Annotated[str, Meta(description="The key's public id.", examples=["a1b2c3d4"])]


class CheckKey(Params):
    key: Annotated[str, Meta(max_length=1000, description="The key itself.")]


class ReadAudit(Params):
    """Which lines of the audit trail to read."""

    after: Annotated[
        Seq | None, Meta(description="Lines behind this one; left out: the newest.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LINES, description="Lines in one answer.")] = 100
    company: Annotated[CompanyId | None, Meta(description="Only lines about this one.")] = None


class KeyInfo(Result):
    """An API key, without its secret."""

    id: str
    name: str
    scope: KeyScope
    companies: Annotated[list[str] | None, Meta(description="Null: all companies.")]
    created_ms: TimeMs
    last_used_ms: Annotated[TimeMs | None, Meta(description="To the minute; null: never.")]


class NewKey(KeyInfo):
    """A key that was just made."""

    key: Annotated[
        str, Meta(description="The key itself. It is shown now, and nobody can ask for it again.")
    ]


class KeyList(Result):
    keys: list[KeyInfo]


class AuditLine(Result):
    """One line of the audit trail. No message text, phone number or secret is in it."""

    id: int
    time_ms: TimeMs
    actor: Annotated[str, Meta(description="`uid:1000` or `key:ID`.")]
    pid: int | None
    method: str
    company: str | None
    subject: Annotated[str | None, Meta(description="What it was about, beside a company.")]
    outcome: Annotated[str, Meta(description="`ok`, or the name of an error.")]
    times: Annotated[int, Meta(description="How often the same happened within a minute.")]


class AuditLines(Result):
    """Lines in their order."""

    lines: list[AuditLine]
    next: Annotated[
        int | None, Meta(description="What to give as `after` to go on, forwards in time.")
    ]


CREATE = Declaration("key.create", CreateKey, NewKey, "Make an API key.", writes=True)
LIST = Declaration("key.list", NoParams, KeyList, "The API keys.", writes=False)
REVOKE = Declaration("key.revoke", OneKey, KeyInfo, "End an API key.", writes=True)
FOLLOW = Declaration(
    "key.follow",
    NoParams,
    Done,
    """Hear of keys that are revoked; for the gateway.

    Each comes as a notification `key.revoked {id}`, until the connection ends.
    """,
    writes=True,
)
CHECK = Declaration("key.check", CheckKey, KeyInfo, "Whose key that is.", writes=False)
AUDIT = Declaration("daemon.audit", ReadAudit, AuditLines, "Who did what.", writes=False)

METHODS = (CREATE, LIST, REVOKE, FOLLOW, CHECK, AUDIT)
