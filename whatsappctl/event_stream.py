"""Following the event log: what `Client.events` and `Client.start_and_watch` give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from whatsappctl.connection import BlockingConnection
from whatsappd.errors import Malformed
from whatsappd.model.event import Event

if TYPE_CHECKING:
    from types import TracebackType


class EventStream:
    """Events in the order of the log, for ever: iterating waits for the next one.

    Iteration ends with an exception when the daemon stops (`Stopping`), or the connection is lost
    (`Unreachable`); subscribe again with `after=` the last `seq` that was seen, and nothing is
    missed or repeated.

    Attributes:
        after: where it began.
        last_seq: the newest event's number at that time; None for a started session's stream.
        gap: a `seq` before which events that were asked for are deleted already; else None.
    """

    def __init__(
        self, connection: BlockingConnection, answer: dict[str, Any], *, deadline: float | None
    ) -> None:
        if not isinstance(answer, dict) or "subscription" not in answer:
            connection.close()
            raise Malformed(f"whatsappd answered no subscription: {answer!r:.200}")
        self._connection = connection
        self._subscription = answer["subscription"]
        self._deadline = deadline
        self.after: int | None = answer.get("after")
        self.last_seq: int | None = answer.get("last_seq")
        self.gap: int | None = answer.get("gap")
        self.consumer: str | None = None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return self.next()

    def next(self, *, deadline: float | None = None) -> Event:
        """The next event, waiting for at most `deadline` seconds.

        Raises:
            TimedOut: none came in time; the stream goes on.
        """
        while True:
            method, arguments = self._connection.notification(deadline=deadline)
            if arguments.get("subscription") != self._subscription:
                continue
            if method == "event":
                return Event.from_wire(arguments.get("event"))
            if method == "events.gap":
                self.gap = arguments.get("first_seq")

    def has_next(self) -> bool:
        """Whether the next event may have arrived already."""
        return self._connection.has_notification()

    def fileno(self) -> int:
        """For `select` and the like: readable when something arrived, or the daemon is gone."""
        return self._connection.fileno()

    def ack(self, seq: int) -> None:
        """Everything up to `seq` is dealt with: the consumer goes on behind it next time."""
        if self.consumer is None:
            raise ValueError("only a stream with a consumer's name can be acknowledged")
        arguments = {"consumer": self.consumer, "seq": seq}
        self._connection.call("events.ack", arguments, deadline=self._deadline)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def subscribe(
    path: str,
    *,
    after: int | None,
    companies: Iterable[str] | None,
    types: Iterable[str] | None,
    consumer: str | None,
    deadline: float | None,
) -> EventStream:
    """A stream on a connection of its own, so that calls and events never wait for each other."""
    wanted: dict[str, Any] = {
        "after": after,
        "companies": None if companies is None else list(companies),
        "types": None if types is None else list(types),
        "consumer": consumer,
    }
    arguments = {name: value for name, value in wanted.items() if value is not None}
    connection = BlockingConnection(path, deadline=deadline)
    try:
        answer = connection.call("events.subscribe", arguments, deadline=deadline)
    except BaseException:
        connection.close()
        raise
    stream = EventStream(connection, answer, deadline=deadline)
    stream.consumer = consumer
    return stream
