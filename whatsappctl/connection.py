"""One blocking connection to the daemon: requests, answers and notifications, with deadlines.

`client` and `stream` use it; scripts use those. It is not for several threads at once.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from whatsappd.errors import (
    Denied,
    Malformed,
    TimedOut,
    Unreachable,
    WhatsappdError,
    error_from_wire,
    not_running,
)
from whatsappd.wire.frames import READ_SIZE, MessagePackReader
from whatsappd.wire.rpc import (
    MAX_MSGID,
    Notification,
    Response,
    is_last_word,
    named_arguments,
    pack_request,
    parse_message,
)


class Connection:
    """Connected from the beginning; the daemon's socket is at `path`.

    Args:
        deadline: seconds for connecting; None waits for ever. The daemon takes connections at once
            unless it is overloaded or hangs.

    Raises:
        Unreachable: nobody answers there; the message says what to do.
        Denied: the file permissions keep us out.
        TimedOut: the daemon did not take the connection in time.
    """

    def __init__(self, path: str, *, deadline: float | None) -> None:
        self.path = path
        self._sock = connect(path, deadline)
        self._frames = MessagePackReader()
        self._answers: dict[int, Response] = {}
        self._awaited: set[int] = set()
        self._notifications: deque[tuple[str, dict[str, Any]]] = deque()
        self._last_msgid = 0
        self._lost: WhatsappdError | None = None

    @property
    def lost(self) -> bool:
        """Whether nothing can be called on it any more."""
        return self._lost is not None

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        if self._lost is None:
            self._lost = Unreachable("the connection is closed")
        self._sock.close()

    def call(
        self,
        method: str,
        arguments: dict[str, Any],
        *,
        deadline: float | None,
        notified: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> Any:
        """Call `method` and wait for its result, for at most `deadline` seconds.

        Args:
            notified: given each notification (method, arguments) as it comes. Without it, they
                wait for `notification`.

        Raises:
            WhatsappdError: what the daemon answered, by its class in `whatsappd.errors`.
            TimedOut: no answer came in time. What was asked for goes on.
            Unreachable: the connection is lost; whether the call was carried out is unknown.
        """
        until = None if deadline is None else monotonic() + deadline
        self._last_msgid = msgid = self._last_msgid % MAX_MSGID + 1
        self._awaited.add(msgid)
        try:
            self._send(pack_request(msgid, method, arguments), until)
            while msgid not in self._answers:
                self._receive(until)
                while notified is not None and self._notifications:
                    notified(*self._notifications.popleft())
        except TimeoutError as error:
            raise TimedOut(
                f"{method}: no answer within {deadline:g} s; what was asked for goes on",
                method=method,
            ) from error
        finally:
            self._awaited.discard(msgid)
        answer = self._answers.pop(msgid)
        if answer.error is not None:
            raise error_from_wire(answer.error)
        return answer.result

    def has_notification(self) -> bool:
        """Whether `notification` would return at once."""
        return bool(self._notifications)

    def notification(self, *, deadline: float | None) -> tuple[str, dict[str, Any]]:
        """The next notification (method, arguments), waiting for at most `deadline` seconds.

        Raises:
            TimedOut: none came in time.
            Unreachable, Stopping, …: the daemon closed the connection, and said why if it could.
        """
        until = None if deadline is None else monotonic() + deadline
        try:
            while not self._notifications:
                self._receive(until)
        except TimeoutError as error:
            raise TimedOut(f"nothing came within {deadline:g} s") from error
        return self._notifications.popleft()

    def _send(self, data: bytes, until: float | None) -> None:
        if self._lost is not None:
            raise self._lost
        view = memoryview(data)
        try:
            while view:
                self._sock.settimeout(_left(until))
                view = view[self._sock.send(view) :]
        except TimeoutError:
            # Half a message may have left, so nothing can follow it.
            self._lose(TimedOut(f"whatsappd at {self.path} reads nothing"))
            raise
        except OSError:
            # It closed the connection, and may have said why: `_receive` meets that first.
            return

    def _receive(self, until: float | None) -> None:
        """Take what arrives next.

        Raises:
            TimeoutError: nothing arrived in time.
            WhatsappdError: nothing will arrive any more, and why.
        """
        if self._lost is not None:
            raise self._lost
        try:
            self._sock.settimeout(_left(until))
            data = self._sock.recv(READ_SIZE)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._lose(
                Unreachable(f"the connection to whatsappd is lost: {error.strerror}")
            ) from error
        if not data:
            raise self._lose(Unreachable(f"whatsappd at {self.path} closed the connection"))
        try:
            for value in self._frames.feed(data):
                self._take(value)
        except WhatsappdError as error:
            raise self._lose(error) from None

    def _take(self, value: Any) -> None:
        message = parse_message(value)
        if isinstance(message, Response):
            if message.msgid in self._awaited:  # else its caller has given up
                self._answers[message.msgid] = message
        elif isinstance(message, Notification):
            arguments = named_arguments(message.params)
            if message.method == "error" and is_last_word(arguments):
                raise error_from_wire(arguments)  # the daemon's last word before it closes
            self._notifications.append((message.method, arguments))
        else:
            raise Malformed("whatsappd sent a request")

    def _lose(self, error: WhatsappdError) -> WhatsappdError:
        self._lost = error
        self._sock.close()
        return error


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def connect(path: str, deadline: float | None) -> socket.socket:
    """A socket connected to the daemon; raises as `Connection` does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline)
        sock.connect(path)
    except PermissionError as error:
        sock.close()
        raise Denied(
            f"no permission to connect to {path}: ask to be added to the group that owns it",
            path=path,
        ) from error
    except TimeoutError as error:
        sock.close()
        raise TimedOut(
            f"whatsappd at {path} takes no connection: it hangs or is overloaded", path=path
        ) from error
    except OSError as error:
        sock.close()
        raise not_running(path, error) from error
    return sock
