"""The blocking client, public: `from whatsappctl import Client`.

It needs no event loop, starts in milliseconds, and raises the exceptions of `whatsappd.errors`,
which are the same ones that the daemon raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from whatsappctl.connection import BlockingConnection
from whatsappd.errors import TimedOut, Unreachable
from whatsappd.model.event import SESSION_STATE
from whatsappd.model.paths import socket_to_reach

if TYPE_CHECKING:
    from types import TracebackType

    from whatsappctl.event_stream import EventStream

#: Seconds that a call may take unless it says otherwise. Most answers take a millisecond; stopping
#: or removing a session waits for its worker.
DEADLINE = 30.0
#: Stands for the client's own deadline, where None already means none.
CLIENTS_OWN = -1.0


class Client:
    """A connection to whatsappd, opened with the first call.

        with Client() as client:
            client.start("acme")
            row = client.send("acme", "+15550100", "Hello", wait="sent", deadline=60)

    Args:
        path: the daemon's socket. Default: WHATSAPPD_SOCKET, else the user's own daemon's, else
            the system's.
        deadline: seconds that each call may take, unless it is given its own; None: for ever.

    All methods raise `Unreachable` when the daemon does not run (the message says how to start it)
    or the connection is lost, `TimedOut` when a deadline passes (what was asked for goes on), and
    otherwise what the daemon answers. After an error that lost the connection, the next call opens
    a new one. One client is for one thread at a time.
    """

    def __init__(self, path: str | None = None, *, deadline: float | None = DEADLINE) -> None:
        self.path = path or socket_to_reach()
        self._deadline = deadline
        self._connection: BlockingConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(
        self, method: str, /, *, deadline: float | None = CLIENTS_OWN, **arguments: Any
    ) -> Any:
        """Call any method of the daemon by its name: `call("session.status", company="acme")`.

        Arguments that are None are left out, which means their default to the daemon.

        Args:
            deadline: seconds for this call; None: for ever; unset: the client's own.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        return self.request(method, given, deadline=deadline)

    def request(
        self, method: str, arguments: dict[str, Any], *, deadline: float | None = CLIENTS_OWN
    ) -> Any:
        """As `call`, with the arguments in a map, exactly as they are."""
        if deadline == CLIENTS_OWN:
            deadline = self._deadline
        if self._connection is None or self._connection.lost:
            self.close()
            self._connection = BlockingConnection(self.path, deadline=deadline)
        return self._connection.call(method, arguments, deadline=deadline)

    # --- the daemon ---------------------------------------------------------------------------

    def hello(self) -> dict[str, Any]:
        """Versions, the mode (`real` or `sandbox`), and the names of all methods."""
        return self._map("daemon.hello")

    def status(self, company: str | None = None) -> dict[str, Any]:
        """One company's session (see `SessionStatus`), or the whole daemon's `daemon.status`."""
        if company is None:
            return self._map("daemon.status")
        return self._map("session.status", company=company)

    def backup(self, write: Callable[[bytes], object], *, accounts: bool = False) -> dict[str, Any]:
        """Fetch a backup, a piece at a time: the database, or with `accounts` an archive (tar) of
        it and of the companies' accounts, which hold their keys.

            with open("backup.db", "xb") as file:
                client.backup(file.write)

        Takes as long as it takes; meanwhile everything goes on.

        Args:
            write: is given each piece.

        Returns:
            `bytes`, their `sha256`, and the `companies` whose accounts are in it.

        Raises:
            Unreachable: the connection was lost, or what came is not what was sent: what was
                written is no backup.
        """
        from hashlib import sha256

        digest, size = sha256(), 0

        def notified(method: str, arguments: dict[str, Any]) -> None:
            nonlocal size
            data = arguments.get("data")
            if method == "backup.data" and isinstance(data, bytes):
                size += len(data)
                digest.update(data)
                write(data)

        connection = BlockingConnection(self.path, deadline=self._deadline)
        try:
            answer: dict[str, Any] = connection.call(
                "daemon.backup", {"accounts": accounts}, deadline=None, notified=notified
            )
        finally:
            connection.close()
        if (answer["bytes"], answer["sha256"]) != (size, digest.hexdigest()):
            raise Unreachable("the backup that arrived is not what the daemon sent: try again")
        return answer

    # --- sessions -----------------------------------------------------------------------------

    def sessions(self) -> list[dict[str, Any]]:
        """All sessions (see `whatsappd.model.session.SessionStatus`), by company."""
        found: list[dict[str, Any]] = self._map("session.list")["sessions"]
        return found

    def start(
        self,
        company: str,
        *,
        take_over: bool = False,
        new_account: bool = False,
        queued: str | None = None,
    ) -> dict[str, Any]:
        """Start a session, and make the company if it is new. Answers before it is connected.

        Args:
            take_over: also when another process has taken the account over (state `conflict`).
            new_account: the company is linked with another number from now on (state `held`).
            queued: with it, what becomes of messages that wait: `cancel` (the default) or `send`.
        """
        return self._map(
            "session.start",
            company=company,
            take_over=take_over or None,
            new_account=new_account or None,
            queued=queued,
        )

    def start_and_watch(
        self,
        company: str,
        *,
        take_over: bool = False,
        new_account: bool = False,
        queued: str | None = None,
    ) -> tuple[dict[str, Any], EventStream]:
        """Start a session (see `start`) and follow its events from before: no code is missed."""
        from whatsappctl.event_stream import EventStream

        connection = BlockingConnection(self.path, deadline=self._deadline)
        arguments: dict[str, Any] = {"company": company, "watch": True}
        if take_over:
            arguments["take_over"] = True
        if new_account:
            arguments["new_account"] = True
        if queued is not None:
            arguments["queued"] = queued
        try:
            status = connection.call("session.start", arguments, deadline=self._deadline)
        except BaseException:
            connection.close()
            raise
        stream = EventStream(connection, status, deadline=self._deadline)
        return status, stream

    def stop(self, company: str) -> dict[str, Any]:
        """Stop a session; it stays stopped when the daemon restarts."""
        return self._map("session.stop", company=company)

    def restart(self, company: str) -> dict[str, Any]:
        """Stop a session and start it again, with a new worker."""
        return self._map("session.restart", company=company)

    def logout(self, company: str) -> dict[str, Any]:
        """Unlink the device from the phone; the next start shows a QR code."""
        return self._map("session.logout", company=company)

    def remove(self, company: str, *, force: bool = False) -> dict[str, Any]:
        """Unlink, and delete everything that is stored of the company.

        Args:
            force: also when WhatsApp cannot be told (the device stays listed on the phone).
        """
        return self._map("session.remove", company=company, force=force or None)

    def qr(self, company: str) -> dict[str, Any]:
        """The QR code to scan now: `qr` (the text), `since_ms`, `expires_ms`.

        Raises:
            WrongState: the session shows none.
        """
        return self._map("session.qr", company=company)

    def wait(
        self, company: str, state: str = "connected", *, deadline: float | None = None
    ) -> dict[str, Any]:
        """Wait until a session is in a state; its status. Returns at once if it is already.

        Raises:
            TimedOut: it was not within `deadline` seconds; the message says how it stands.
        """
        until = None if deadline is None else monotonic() + deadline
        # Follow first and look then: a change in between is in the stream.
        with self.events(companies=[company], types=[SESSION_STATE]) as events:
            while True:
                status = self.status(company)
                if status["state"] == state:
                    return status
                left = None if until is None else max(0.001, until - monotonic())
                try:
                    events.next(deadline=left)
                except TimedOut as error:
                    raise TimedOut(
                        f"{company} is not {state} after {deadline:g} s, "
                        f"but {status['state']}: {status['cause']}",
                        company=company,
                        state=status["state"],
                    ) from error

    # --- messages -----------------------------------------------------------------------------

    def send(
        self,
        company: str,
        to: str,
        text: str | None = None,
        *,
        content: dict[str, Any] | None = None,
        key: str | None = None,
        wait: str = "queued",
        ttl_ms: int | None = None,
        on_uncertain: str | None = None,
        no_queue: bool = False,
        deadline: float | None = CLIENTS_OWN,
    ) -> dict[str, Any]:
        """Send a message. Once this returns, it is on disk and will not be lost.

        Args:
            to: an international number (`+15550100`) or a JID.
            text: what it says, if that is a text.
            content: what it says, of any kind; see `whatsappd.model.content`.
            key: your idempotency key. The same key and content gives the same message, however
                often it is sent: with one it is safe to try again after any error.
            wait: answer when the message is `queued` (on disk), `sent` (WhatsApp has it) or
                `delivered` (the recipient's device has it).
            ttl_ms: milliseconds after which it shall not be sent any more.
            on_uncertain: `ask` or `resend`, when a crash leaves its fate unknown.
            no_queue: raise `NotConnected` or `RateLimited` rather than let it wait its turn.

        Returns:
            The outbox row, with `id` and `state`; see `whatsappd.model.message.Row`.
        """
        return self._map(
            "message.send",
            company=company,
            to=to,
            text=text,
            content=content,
            key=key,
            wait=None if wait == "queued" else wait,
            ttl_ms=ttl_ms,
            on_uncertain=on_uncertain,
            no_queue=no_queue or None,
            deadline=deadline,
        )

    def message(self, id: str) -> dict[str, Any]:
        """The outbox row with that id."""
        return self._map("message.get", id=id)

    # --- events -------------------------------------------------------------------------------

    def events(
        self,
        *,
        after: int | None = None,
        companies: Iterable[str] | None = None,
        types: Iterable[str] | None = None,
        consumer: str | None = None,
    ) -> EventStream:
        """Follow the event log, on a connection of its own; see `EventStream`.

            for event in client.events(after=0, types=["message.received"]):
                print(event.company, event.data["text"])

        Args:
            after: begin behind that `seq`; 0 is the oldest that is kept. Default: only new events,
                or where `consumer` left off.
            companies: only events of these.
            types: only events of these types (`whatsappd.model.event.EVENT_TYPES`).
            consumer: a name whose place the daemon keeps; move it with `EventStream.ack`.
        """
        from whatsappctl.event_stream import subscribe

        return subscribe(
            self.path,
            after=after,
            companies=companies,
            types=types,
            consumer=consumer,
            deadline=self._deadline,
        )

    def _map(self, method: str, **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = self.call(method, **arguments)
        return result
