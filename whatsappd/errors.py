"""Every error that a caller can meet: its code, name, meaning and remedy, each declared once.

An error is a class. Its declaration has what the four doors need: the RPC's stable code and name,
the command line's exit code, the gateway's HTTP status. Its docstring says what it means, and
`remedy` what the caller can do about it. `ERRORS` is the table of all of them, by name; the
reference in the manual is made from it.

Raise the class that fits, with a message that says what is wrong *and what to do*. Details for
programs go into keyword arguments, which travel as `data`.

The module imports nothing but typing: `whatsappctl` loads it on every call, and must start quickly.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

# Exit codes of `whatsappctl` and `whatsappd`. Scripts rely on them: never renumber.
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_NOT_CONNECTED = 4
EXIT_RATE_LIMITED = 5
EXIT_TIMED_OUT = 6
EXIT_CONFLICT = 7
EXIT_ALREADY_RUNNING = 8
EXIT_NOT_FOUND = 9
EXIT_DENIED = 10
EXIT_UNCERTAIN = 11

#: Every error by its name. Each class enters itself when it is declared.
ERRORS: dict[str, type[WhatsappdError]] = {}


class WhatsappdError(Exception):
    """Base of all errors that are answered to a caller.

    A subclass is declared with:

    Args:
        code, name: the RPC's. Callers rely on them: never renumber, never rename.
        remedy: what the caller can do, for the reference.
        exit_code: the command line's.
        http_status: the gateway's.
    """

    code: ClassVar[int] = 500
    name: ClassVar[str] = "internal"
    remedy: ClassVar[str] = ""
    exit_code: ClassVar[int] = EXIT_FAILED
    http_status: ClassVar[int] = 500

    def __init_subclass__(
        cls,
        *,
        code: int,
        name: str,
        remedy: str,
        exit_code: int = EXIT_FAILED,
        http_status: int = 500,
    ) -> None:
        super().__init_subclass__()
        cls.code = code
        cls.name = name
        cls.remedy = remedy
        cls.exit_code = exit_code
        cls.http_status = http_status
        if name in ERRORS:
            raise TypeError(f"{cls.__name__}: {ERRORS[name].__name__} has the name {name} already")
        ERRORS[name] = cls

    def __init__(self, message: str, /, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = data
        #: The company that the failed call was about, where the caller must not be told. For the
        #: audit trail; never sent.
        self.company: str | None = None

    @classmethod
    def meaning(cls) -> str:
        """What it means, for the reference: the class's docstring on one line."""
        return " ".join((cls.__doc__ or "").split())

    def concerning(self, company: str) -> Self:
        """The same error, which also knows the company that it is about."""
        self.company = company
        return self

    def afresh(self) -> Self:
        """The same error to raise once more: each raise adds a traceback, so callers share none."""
        return type(self)(self.message, **self.data)

    def as_wire(self) -> dict[str, Any]:
        """The `error` member of a MessagePack-RPC response."""
        return {"code": self.code, "name": self.name, "message": self.message, "data": self.data}


def all_errors() -> list[type[WhatsappdError]]:
    """Every error, by code."""
    return sorted(ERRORS.values(), key=lambda error: error.code)


def error_from_wire(error: Any) -> WhatsappdError:
    """The exception for an `error` member that a daemon answered.

    A name that is not known here (of a newer daemon) gives a plain `WhatsappdError`.
    """
    if not isinstance(error, dict):
        return Internal(f"the daemon answered an error that is no map: {error!r}")
    message = str(error.get("message", "no message"))
    data = error.get("data")
    data = {str(key): value for key, value in data.items()} if isinstance(data, dict) else {}
    name = error.get("name")
    kind = ERRORS.get(name, WhatsappdError) if isinstance(name, str) else WhatsappdError
    return kind(message, **data)


class Internal(
    WhatsappdError,
    code=500,
    name="internal",
    remedy="Report it with the log's lines of that reference.",
):
    """A defect of the daemon. The answer holds a reference, under which the log has the details."""


# --- the bytes and the call itself ------------------------------------------------------------


class Malformed(
    WhatsappdError,
    code=100,
    name="malformed",
    exit_code=EXIT_USAGE,
    http_status=400,
    remedy="Mend the client: see the RPC's description.",
):
    """The bytes are not MessagePack, or not a MessagePack-RPC message."""


class TooLarge(
    WhatsappdError,
    code=101,
    name="too_large",
    exit_code=EXIT_USAGE,
    http_status=413,
    remedy="Send, or ask for, less at a time.",
):
    """A message exceeds a size limit of the protocol."""


class UnknownMethod(
    WhatsappdError,
    code=102,
    name="unknown_method",
    exit_code=EXIT_USAGE,
    http_status=404,
    remedy="`daemon.hello` lists the methods; a daemon that is older than its client lacks some.",
):
    """The daemon has no method of that name."""


class InvalidParams(
    WhatsappdError,
    code=103,
    name="invalid_params",
    exit_code=EXIT_USAGE,
    http_status=422,
    remedy="The message says what is accepted.",
):
    """A parameter is missing, unknown, mistyped or out of range; `data.field` names it."""


class TooManyRequests(
    WhatsappdError,
    code=104,
    name="too_many_requests",
    http_status=503,
    remedy="Wait for some answers, or close some connections, and try again.",
):
    """The daemon holds no more requests, subscriptions or connections for this caller."""


class Stopping(
    WhatsappdError,
    code=105,
    name="stopping",
    exit_code=EXIT_UNREACHABLE,
    http_status=503,
    remedy="Try again when the daemon runs again.",
):
    """The daemon is shutting down and accepts no more work."""


class Denied(
    WhatsappdError,
    code=106,
    name="denied",
    exit_code=EXIT_DENIED,
    http_status=403,
    remedy="Change the access rules or the key's rights, or call as another user.",
):
    """The caller's user, or API key, is not allowed to do this."""


class TimedOut(
    WhatsappdError,
    code=107,
    name="timed_out",
    exit_code=EXIT_TIMED_OUT,
    http_status=504,
    remedy="Look at how it stands, and wait longer if it goes on.",
):
    """What was waited for did not happen in time; what was asked for goes on."""


class Unreachable(
    WhatsappdError,
    code=108,
    name="unreachable",
    exit_code=EXIT_UNREACHABLE,
    http_status=503,
    remedy="Start the daemon: `whatsappd run` or `systemctl start whatsappd`.",
):
    """The daemon does not answer on its socket. Raised by clients, never sent."""


class Revoked(
    WhatsappdError,
    code=109,
    name="revoked",
    exit_code=EXIT_DENIED,
    http_status=401,
    remedy="Use another key: `whatsappctl keys create` makes one.",
):
    """The API key in whose name the call is made does not exist (any more)."""


# --- sessions ---------------------------------------------------------------------------------


class UnknownCompany(
    WhatsappdError,
    code=200,
    name="unknown_company",
    exit_code=EXIT_NOT_FOUND,
    http_status=404,
    remedy="`whatsappctl list` shows the companies; `whatsappctl start COMPANY` makes one.",
):
    """There is no company of that name."""


class NotConnected(
    WhatsappdError,
    code=201,
    name="not_connected",
    exit_code=EXIT_NOT_CONNECTED,
    http_status=409,
    remedy="`whatsappctl status COMPANY` says why; `whatsappctl wait COMPANY` waits for it.",
):
    """The company's session is not connected to WhatsApp, and the call needs it to be."""


class WrongState(
    WhatsappdError,
    code=202,
    name="wrong_state",
    exit_code=EXIT_CONFLICT,
    http_status=409,
    remedy="The message says which state it is in, and what is possible there.",
):
    """The session's (or message's) state does not allow the call."""


class WorkerFailed(
    WhatsappdError,
    code=203,
    name="worker_failed",
    http_status=502,
    remedy="Try again; if it stays, `whatsappctl doctor` and the log say more.",
):
    """The company's worker process refused the call, or could not be started."""


class WorkerGone(
    WhatsappdError,
    code=204,
    name="worker_gone",
    http_status=502,
    remedy="Try again: a new worker is started by itself.",
):
    """The company's worker process went away before it answered."""


# --- messages and events ----------------------------------------------------------------------


class UnknownMessage(
    WhatsappdError,
    code=300,
    name="unknown_message",
    exit_code=EXIT_NOT_FOUND,
    http_status=404,
    remedy="`whatsappctl outbox list` shows them; finished ones are kept for a limited time.",
):
    """There is no accepted message of that id."""


def unknown_message(row_id: str) -> UnknownMessage:
    """Also for a message that the caller may not see: whoever asks must not learn of it."""
    return UnknownMessage(
        f"there is no message {row_id!r:.40} (finished ones are kept for a limited time)",
        id=row_id[:40],
    )


class KeyConflict(
    WhatsappdError,
    code=301,
    name="key_conflict",
    exit_code=EXIT_CONFLICT,
    http_status=409,
    remedy="Give each message a key of its own.",
):
    """The idempotency key was used before with other content."""


class QueueFull(
    WhatsappdError,
    code=302,
    name="queue_full",
    exit_code=EXIT_RATE_LIMITED,
    http_status=429,
    remedy="Wait until some messages are sent, or cancel some.",
):
    """The company's queue holds as many messages as it may."""


class RateLimited(
    WhatsappdError,
    code=303,
    name="rate_limited",
    exit_code=EXIT_RATE_LIMITED,
    http_status=429,
    remedy="Try again after that time, or let the message wait in the queue.",
):
    """A limit is reached; `data.retry_after_ms` says when to come again."""


class SendFailed(
    WhatsappdError,
    code=304,
    name="send_failed",
    http_status=409,  # not 502: HTTP clients repeat that by themselves, and this will not change
    remedy="The message's `reason` says why; send another one.",
):
    """The message will not be sent: WhatsApp refused it, it expired, or it was cancelled."""


class Uncertain(
    WhatsappdError,
    code=305,
    name="uncertain",
    exit_code=EXIT_UNCERTAIN,
    http_status=502,
    remedy="A receipt may still tell; else decide with `whatsappctl outbox resolve ID`.",
):
    """Nobody knows whether the message was sent. Raised by clients that waited for it."""


class UnknownSubscription(
    WhatsappdError,
    code=310,
    name="unknown_subscription",
    exit_code=EXIT_NOT_FOUND,
    http_status=404,
    remedy="Subscriptions end with their connection: subscribe again.",
):
    """This connection has no subscription of that number."""


class UnknownConsumer(
    WhatsappdError,
    code=311,
    name="unknown_consumer",
    exit_code=EXIT_NOT_FOUND,
    http_status=404,
    remedy="Subscribe with the consumer's name first: that makes it.",
):
    """There is no consumer of events of that name."""


class UnknownKey(
    WhatsappdError,
    code=320,
    name="unknown_key",
    exit_code=EXIT_NOT_FOUND,
    http_status=404,
    remedy="`whatsappctl keys list` shows their ids.",
):
    """No API key has that id."""


class UnknownWebhook(
    WhatsappdError,
    code=321,
    name="unknown_webhook",
    exit_code=EXIT_NOT_FOUND,
    http_status=404,
    remedy="`whatsappctl webhooks list` shows their ids.",
):
    """No webhook has that id."""


def unknown_webhook(identity: str) -> UnknownWebhook:
    """Also for a webhook that the caller may not see: whoever asks must not learn of it."""
    return UnknownWebhook(
        f"there is no webhook {identity!r:.40}: `whatsappctl webhooks list` shows their ids",
        id=identity[:40],
    )


class UnknownDeadLetter(
    WhatsappdError,
    code=322,
    name="unknown_dead_letter",
    exit_code=EXIT_NOT_FOUND,
    http_status=404,
    remedy="`whatsappctl webhooks dead ID` shows them.",
):
    """The webhook has no dead letter of that id."""


# --- the host ---------------------------------------------------------------------------------


class AlreadyRunning(
    WhatsappdError,
    code=400,
    name="already_running",
    exit_code=EXIT_ALREADY_RUNNING,
    http_status=409,
    remedy="Stop the other daemon, or give this one a state directory and a socket of its own.",
):
    """Another daemon holds the state directory or the socket."""


class BadStateDirectory(
    WhatsappdError,
    code=401,
    name="bad_state_directory",
    remedy="The message says what is wrong with it, and how to mend it.",
):
    """The state directory cannot be used: permissions, wrong mode, or a newer schema."""


class StoreFailed(
    WhatsappdError,
    code=402,
    name="store_failed",
    http_status=507,
    remedy="Free or mend the disk; the daemon goes on by itself.",
):
    """The disk is full, read-only or corrupt: nothing new can be accepted until that is mended."""


class SandboxFailed(
    WhatsappdError,
    code=403,
    name="sandbox_failed",
    http_status=409,
    remedy="The message says what it lacks.",
):
    """The sandbox could not do what it was told (no such QR code, phone, or connection)."""


class BadConfiguration(
    WhatsappdError,
    code=404,
    name="bad_configuration",
    exit_code=EXIT_USAGE,
    remedy="Mend them; `whatsappd check` looks at all settings without starting anything.",
):
    """Settings are wrong; `data.problems` lists all of them: key, value, origin, message."""


class FileNotWritten(
    WhatsappdError,
    code=405,
    name="file_not_written",
    remedy="Make room or change permissions there, or give another path.",
):
    """A file that a command was told to write cannot be written, or must not be.

    The message begins with its path, and says why.
    """


class OwnershipLost(
    WhatsappdError,
    code=406,
    name="ownership_lost",
    remedy="Find out what removed the lock file, and start the daemon again.",
):
    """The lock file was removed or replaced while the daemon ran: another one could start."""


class BadBackup(
    WhatsappdError,
    code=407,
    name="bad_backup",
    remedy="Use another backup; the message says what is wrong with this one.",
):
    """A file that was to be restored is no backup, is damaged, or is not for this daemon."""
