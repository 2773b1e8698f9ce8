"""`session.*`: start, stop, configure, link and look at companies' sessions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType

from whatsappd.api.declaration import Concerns, Declaration, Examples, NoParams, Params, Result
from whatsappd.api.types import CompanyId, OneCompany, TimeMs
from whatsappd.limits.settings import MAX_LIMIT
from whatsappd.model.session import SessionState
from whatsappd.rules.account_binding import QueuedMessages

#: `limits.settings.check_limit` checks it, and words the complaint.
Limit = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_LIMIT})]
_LimitChange = Limit | None | UnsetType


class StartOptions(Params):
    """How to start a session."""

    examples: ClassVar[Examples] = ({},)

    take_over: Annotated[
        bool, Meta(description="Start although another program opened this account.")
    ] = False
    new_account: Annotated[
        bool,
        Meta(
            description="The company may be linked with another number than before, or is held "
            "because it is."
        ),
    ] = False
    queued: Annotated[
        QueuedMessages,
        Meta(
            description="With `new_account`: what becomes of messages that wait, and were written "
            "for the number before."
        ),
    ] = QueuedMessages.CANCEL


class StartSession(StartOptions, kw_only=True):
    """Which session to start, and how."""

    examples: ClassVar[Examples] = ({"company": "acme"},)

    company: CompanyId
    watch: Annotated[
        bool,
        Meta(
            description="Follow the company's events on this connection, from before the start: "
            "no QR code is missed."
        ),
    ] = False


class LimitChanges(Params):
    """Limits of sending: a number sets one, 0 switches it off, null gives it its default again."""

    examples: ClassVar[Examples] = ({"per_minute": 20},)

    per_minute: Annotated[_LimitChange, Meta(description="Messages a minute.")] = UNSET
    per_phone_per_minute: Annotated[
        _LimitChange, Meta(description="Messages a minute to one recipient.")
    ] = UNSET
    cold_per_hour: Annotated[
        _LimitChange, Meta(description="First messages an hour to people never written with.")
    ] = UNSET
    cold_per_day: Annotated[
        _LimitChange, Meta(description="First messages a day to people never written with.")
    ] = UNSET


class ConfigureSession(LimitChanges, kw_only=True):
    """Whose limits to set, and to what."""

    examples: ClassVar[Examples] = ({"company": "acme", "per_minute": 20},)

    company: CompanyId


class RemoveSession(Params):
    """Which company to remove."""

    company: CompanyId
    force: Annotated[
        bool, Meta(description="Also if WhatsApp cannot be told of the unlinking.")
    ] = False


class SessionInfo(Result):
    """A company's session as it is now."""

    company: CompanyId
    wanted: Annotated[
        bool, Meta(description="Whether it should be running; survives restarts of the daemon.")
    ]
    state: SessionState
    since_ms: TimeMs
    cause: Annotated[str, Meta(description="Why it is in this state, in words.")]
    next_try_ms: Annotated[
        TimeMs | None, Meta(description="When it is started again, if it waits for that.")
    ] = None
    restarts: Annotated[
        int, Meta(description="Restarts of the worker since somebody started the session.")
    ] = 0
    worker_pid: int | None = None
    jid: Annotated[
        str | None,
        Meta(description="The linked device.", examples=["15550100:2@s.whatsapp.net"]),
    ] = None
    lid: Annotated[str | None, Meta(description="The linked device's other identity.")] = None
    push_name: Annotated[str | None, Meta(description="The name that others see.")] = None
    qr: Annotated[
        str | None,
        Meta(description="The code to scan, while pairing; for those who may link the company."),
    ] = None
    qr_shown: Annotated[bool, Meta(description="Whether a code is shown now.")] = False
    last_inbound_ms: Annotated[
        TimeMs | None, Meta(description="When anything last arrived from WhatsApp.")
    ] = None
    last_error: str | None = None
    last_error_ms: TimeMs | None = None
    queued: Annotated[int, Meta(description="Messages that wait to be sent.")] = 0
    recycled: Annotated[
        int,
        Meta(
            description="Workers replaced because they had grown too large, since the daemon "
            "started."
        ),
    ] = 0
    last_recycled: Annotated[str | None, Meta(description="Why the last one was.")] = None
    outreach_paused_until_ms: Annotated[
        TimeMs | None, Meta(description="No first message goes to a stranger before that.")
    ] = None
    account: Annotated[
        str | None,
        Meta(
            description="The account that the company is bound to.",
            examples=["15550100@s.whatsapp.net"],
        ),
    ] = None
    subscription: Annotated[
        int | UnsetType, Meta(description="With `watch`: the number of the subscription.")
    ] = UNSET


class SessionList(Result):
    """Sessions, by company."""

    sessions: list[SessionInfo]


class RemovedSession(Result):
    """A company that is gone."""

    company: CompanyId
    removed: Literal[True] = True


class LimitsInForce(Result):
    """A company's limits of sending; 0: off."""

    per_minute: int
    per_phone_per_minute: int
    cold_per_hour: int
    cold_per_day: int


class ConfiguredSession(Result):
    """A company's settings as they are now."""

    company: CompanyId
    limits: LimitsInForce


class ShownQrCode(Result):
    """The QR code to scan now."""

    company: CompanyId
    qr: Annotated[str, Meta(description="What the phone scans, as text.")]
    since_ms: TimeMs
    expires_ms: TimeMs


START = Declaration(
    "session.start", StartSession, SessionInfo,
    "Start a session; a company that is new is made.", writes=True,
)  # fmt: skip
STOP = Declaration(
    "session.stop", OneCompany, SessionInfo, "Stop a session; it stays linked.", writes=True
)
RESTART = Declaration(
    "session.restart", OneCompany, SessionInfo, "Stop a session, and start it with a new worker.",
    writes=True,
)  # fmt: skip
LOGOUT = Declaration(
    "session.logout", OneCompany, SessionInfo, "Unlink the device at WhatsApp.", writes=True
)
REMOVE = Declaration(
    "session.remove", RemoveSession, RemovedSession,
    "Unlink a company, and delete all that is kept of it.", writes=True,
)  # fmt: skip
LIST = Declaration(
    "session.list", NoParams, SessionList, "All sessions that the caller may see.",
    writes=False, concerns=Concerns.SEVERAL,
)  # fmt: skip
STATUS = Declaration("session.status", OneCompany, SessionInfo, "One session.", writes=False)
CONFIGURE = Declaration(
    "session.configure", ConfigureSession, ConfiguredSession,
    "Set a company's limits; what is not given stays.", writes=True,
)  # fmt: skip
# Whoever scans it owns the account's messages: it is for those who may link, and each look at it is
# in the audit trail.
QR = Declaration(
    "session.qr",
    OneCompany,
    ShownQrCode,
    """The QR code to scan now.

    While none is shown it is the error `wrong_state`, whose `data.state` says how the session is.
    """,
    writes=True,
)

METHODS = (START, STOP, RESTART, LOGOUT, REMOVE, LIST, STATUS, CONFIGURE, QR)
