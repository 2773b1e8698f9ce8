"""Every error a caller can meet, in one table.

Each class carries what the four doors need: a stable RPC code and name, the exit code of the
command line, and the HTTP status of the gateway. Raise the class that fits with a message that
says what is wrong *and what to do*; put machine-readable details into keyword arguments, which
travel as `data`.

The module stays free of imports beyond the standard typing ones: `whatsappctl` loads it on every
call, and its start-up time is a promise.
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


class WhatsappdError(Exception):
    """Base of all errors that are answered to a caller.

    `code` and `name` are the RPC's, `exit_code` the command line's, `http_status` the gateway's.
    """

    code: ClassVar[int] = 500
    name: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = EXIT_FAILED
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, /, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = data
        #: The company that the failed call was about, where the caller must not be told. For the
        #: audit trail; never sent.
        self.company: str | None = None

    def concerning(self, company: str) -> Self:
        """The same error, which also knows the company that it is about."""
        self.company = company
        return self

    def as_wire(self) -> dict[str, Any]:
        """The `error` member of a MessagePack-RPC response."""
        return {"code": self.code, "name": self.name, "message": self.message, "data": self.data}


class Internal(WhatsappdError):
    """A defect of ours. The log has the traceback; the answer has its reference only."""


# --- the bytes and the call itself ------------------------------------------------------------


class Malformed(WhatsappdError):
    """The bytes are not MessagePack, or not a MessagePack-RPC message."""

    code = 100
    name = "malformed"
    exit_code = EXIT_USAGE
    http_status = 400


class TooLarge(WhatsappdError):
    """A message exceeds a size limit of the protocol."""

    code = 101
    name = "too_large"
    exit_code = EXIT_USAGE
    http_status = 413


class UnknownMethod(WhatsappdError):
    code = 102
    name = "unknown_method"
    exit_code = EXIT_USAGE
    http_status = 404


class InvalidParams(WhatsappdError):
    """A parameter is missing, unknown, mistyped or out of range; `data.field` names it."""

    code = 103
    name = "invalid_params"
    exit_code = EXIT_USAGE
    http_status = 422


class TooManyRequests(WhatsappdError):
    """More requests in flight or subscriptions on one connection, or more connections, than the
    daemon holds."""

    code = 104
    name = "too_many_requests"
    http_status = 503


class Stopping(WhatsappdError):
    """The daemon is shutting down and accepts no more work."""

    code = 105
    name = "stopping"
    exit_code = EXIT_UNREACHABLE
    http_status = 503


class Denied(WhatsappdError):
    """The peer's user is not allowed to do this."""

    code = 106
    name = "denied"
    exit_code = EXIT_DENIED
    http_status = 403


class TimedOut(WhatsappdError):
    """What was waited for did not happen in time; what was asked for goes on."""

    code = 107
    name = "timed_out"
    exit_code = EXIT_TIMED_OUT
    http_status = 504


class Unreachable(WhatsappdError):
    """The daemon does not answer on its socket. Raised by clients, never sent."""

    code = 108
    name = "unreachable"
    exit_code = EXIT_UNREACHABLE
    http_status = 503


def not_running(path: str, error: OSError) -> Unreachable:
    """What every client says when nobody takes its connection to the socket at `path`."""
    return Unreachable(
        f"whatsappd is not running at {path} ({error.strerror or error}): "
        "start it with `whatsappd run` or `systemctl start whatsappd`",
        path=path,
    )


class Revoked(WhatsappdError):
    """The API key in whose name the call is made does not exist (any more)."""

    code = 109
    name = "revoked"
    exit_code = EXIT_DENIED
    http_status = 401


# --- sessions ---------------------------------------------------------------------------------


class UnknownCompany(WhatsappdError):
    code = 200
    name = "unknown_company"
    exit_code = EXIT_NOT_FOUND
    http_status = 404


class NotConnected(WhatsappdError):
    """The company's session is not connected to WhatsApp, and the call needs it to be."""

    code = 201
    name = "not_connected"
    exit_code = EXIT_NOT_CONNECTED
    http_status = 409


class WrongState(WhatsappdError):
    """The session's (or message's) state does not allow the call."""

    code = 202
    name = "wrong_state"
    exit_code = EXIT_CONFLICT
    http_status = 409


class WorkerFailed(WhatsappdError):
    """The company's worker process refused the call, or could not be started."""

    code = 203
    name = "worker_failed"
    http_status = 502


class WorkerGone(WhatsappdError):
    """The company's worker process went away before it answered."""

    code = 204
    name = "worker_gone"
    http_status = 502


# --- messages and events ----------------------------------------------------------------------


class UnknownMessage(WhatsappdError):
    code = 300
    name = "unknown_message"
    exit_code = EXIT_NOT_FOUND
    http_status = 404


def unknown_message(row_id: str) -> UnknownMessage:
    """Also for a message that the caller may not see: whoever asks must not learn of it."""
    return UnknownMessage(
        f"there is no message {row_id!r:.40} (finished ones are kept for a limited time)",
        id=row_id[:40],
    )


class KeyConflict(WhatsappdError):
    """The idempotency key was used before with other content."""

    code = 301
    name = "key_conflict"
    exit_code = EXIT_CONFLICT
    http_status = 409


class QueueFull(WhatsappdError):
    code = 302
    name = "queue_full"
    exit_code = EXIT_RATE_LIMITED
    http_status = 429


class RateLimited(WhatsappdError):
    """A limit is reached; `data.retry_after_ms` says when to come again."""

    code = 303
    name = "rate_limited"
    exit_code = EXIT_RATE_LIMITED
    http_status = 429


class SendFailed(WhatsappdError):
    """The message will not be sent: WhatsApp refused it, it expired, or it was cancelled."""

    code = 304
    name = "send_failed"
    http_status = 409  # not 502: HTTP clients repeat that by themselves, and this will not change


class Uncertain(WhatsappdError):
    """Nobody knows whether the message was sent. Raised by clients that waited for it."""

    code = 305
    name = "uncertain"
    exit_code = EXIT_UNCERTAIN
    http_status = 502


class UnknownSubscription(WhatsappdError):
    code = 310
    name = "unknown_subscription"
    exit_code = EXIT_NOT_FOUND
    http_status = 404


class UnknownConsumer(WhatsappdError):
    code = 311
    name = "unknown_consumer"
    exit_code = EXIT_NOT_FOUND
    http_status = 404


class UnknownKey(WhatsappdError):
    """No API key has that id."""

    code = 320
    name = "unknown_key"
    exit_code = EXIT_NOT_FOUND
    http_status = 404


class UnknownWebhook(WhatsappdError):
    """No webhook has that id."""

    code = 321
    name = "unknown_webhook"
    exit_code = EXIT_NOT_FOUND
    http_status = 404


def unknown_webhook(identity: str) -> UnknownWebhook:
    """Also for a webhook that the caller may not see: whoever asks must not learn of it."""
    return UnknownWebhook(
        f"there is no webhook {identity!r:.40}: `whatsappctl webhooks list` shows their ids",
        id=identity[:40],
    )


class UnknownDeadLetter(WhatsappdError):
    """The webhook has no dead letter of that id."""

    code = 322
    name = "unknown_dead_letter"
    exit_code = EXIT_NOT_FOUND
    http_status = 404


# --- the host ---------------------------------------------------------------------------------


class AlreadyRunning(WhatsappdError):
    """Another daemon holds the state directory or the socket."""

    code = 400
    name = "already_running"
    exit_code = EXIT_ALREADY_RUNNING
    http_status = 409


class BadStateDirectory(WhatsappdError):
    """The state directory cannot be used: permissions, wrong mode, or a newer schema."""

    code = 401
    name = "bad_state_directory"


class OwnershipLost(WhatsappdError):
    """The lock file was removed or replaced while the daemon ran: another one could start."""

    code = 406
    name = "ownership_lost"


class StoreFailed(WhatsappdError):
    """The disk is full, read-only or corrupt: nothing new can be accepted until that is mended."""

    code = 402
    name = "store_failed"
    http_status = 507


class SandboxFailed(WhatsappdError):
    """The sandbox could not do what it was told (no such QR code, phone, or connection)."""

    code = 403
    name = "sandbox_failed"
    http_status = 409


class BadConfiguration(WhatsappdError):
    """Settings are wrong; `data.problems` lists all of them: key, value, origin, message."""

    code = 404
    name = "bad_configuration"
    exit_code = EXIT_USAGE


class FileNotWritten(WhatsappdError):
    """A file that a command was told to write cannot be written, or must not be.

    The message begins with its path, and says why.
    """

    code = 405
    name = "file_not_written"


class BadBackup(WhatsappdError):
    """A file that was to be restored is no backup, is damaged, or is not for this daemon."""

    code = 406
    name = "bad_backup"


def all_errors() -> list[type[WhatsappdError]]:
    """Every error class, by code: the table that the README and the gateway print."""
    found: list[type[WhatsappdError]] = []
    pending: list[type[WhatsappdError]] = [WhatsappdError]
    while pending:
        for subclass in pending.pop().__subclasses__():
            found.append(subclass)
            pending.append(subclass)
    return sorted(found, key=lambda error: error.code)


def error_from_wire(error: Any) -> WhatsappdError:
    """The exception for an `error` member that a daemon answered.

    An unknown name (a newer daemon) still becomes a `WhatsappdError` with that name's message.
    """
    if not isinstance(error, dict):
        return Internal(f"the daemon answered an error that is no map: {error!r}")
    message = str(error.get("message", "no message"))
    data = error.get("data")
    data = {str(key): value for key, value in data.items()} if isinstance(data, dict) else {}
    for kind in all_errors():
        if kind.name == error.get("name"):
            return kind(message, **data)
    return WhatsappdError(message, **data)
