"""A blocking connection to the daemon: the exchange of `wire.client_exchange` on a socket.

`client` and `event_stream` call one method at a time on it; `batch_sender` posts many and takes
answers as they come. Scripts use those. It is not for several threads at once.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from math import ceil
from time import monotonic
from typing import Any

from whatsappd.errors import TimedOut, Unreachable
from whatsappd.wire.client_exchange import Answer, ClientExchange, Notice, cannot_connect
from whatsappd.wire.frames import READ_SIZE


class BlockingConnection:
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
        self._sock = _connected(path, deadline)
        self._exchange = ClientExchange()
        self._unsent = bytearray()
        self._notices: deque[Notice] = deque()

    @property
    def lost(self) -> bool:
        """Whether nothing can be called on it any more."""
        return self._exchange.ended is not None

    @property
    def unsent(self) -> int:
        """Bytes that the daemon has not taken yet."""
        return len(self._unsent)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._exchange.end(Unreachable("the connection is closed"))
        self._sock.close()

    # --- one call at a time -------------------------------------------------------------------

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
        msgid = self.post(method, arguments)
        self.send()
        try:
            while True:
                answers = self._turn(until)
                while notified is not None and self._notices:
                    notified(*self._notices.popleft())
                for answer in answers:
                    if answer.msgid != msgid:
                        continue  # of a call that was given up
                    if answer.error is not None:
                        raise answer.error
                    return answer.result
        except TimeoutError as error:
            if self._unsent:
                # Half a message may have left, so nothing can follow it.
                self._exchange.end(TimedOut(f"whatsappd at {self.path} reads nothing"))
                self._sock.close()
            raise TimedOut(
                f"{method}: no answer within {deadline:g} s; what was asked for goes on",
                method=method,
            ) from error

    def has_notification(self) -> bool:
        """Whether `notification` would return at once."""
        return bool(self._notices)

    def notification(self, *, deadline: float | None) -> Notice:
        """The next notification, waiting for at most `deadline` seconds.

        Raises:
            TimedOut: none came in time.
            Unreachable, Stopping, …: the daemon closed the connection, and said why if it could.
        """
        until = None if deadline is None else monotonic() + deadline
        try:
            while not self._notices:
                self._turn(until)
        except TimeoutError as error:
            raise TimedOut(f"nothing came within {deadline:g} s") from error
        return self._notices.popleft()

    # --- many at a time -----------------------------------------------------------------------

    def post(self, method: str, arguments: dict[str, Any]) -> int:
        """Put a request into what `send` and `turn` send; the number that its answer will have."""
        msgid, packed = self._exchange.request(method, arguments)
        self._unsent += packed
        return msgid

    def send(self) -> None:
        """Send of what was posted as much as the socket takes now."""
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            # It closed the connection, and may have said why: `_receive` meets that first.
            sent = len(self._unsent)
        del self._unsent[:sent]

    def turn(self, seconds: float, wake: socket.socket) -> list[Answer]:
        """Send what can be sent, and take the answers that have come.

        Returns without any after `seconds`, or when `wake` becomes readable.

        Raises:
            WhatsappdError: the connection is lost, and why. What was posted may have been done.
        """
        try:
            return self._turn(monotonic() + max(0.0, seconds), wake)
        except TimeoutError:
            return []

    def _turn(self, until: float | None, wake: socket.socket | None = None) -> list[Answer]:
        """Wait for the socket, and move bytes both ways.

        So neither end can wait for the other with full buffers.

        Raises:
            TimeoutError: the socket was not ready before `until`.
            WhatsappdError: nothing will arrive any more, and why.
        """
        if self._exchange.ended is not None:
            self._sock.close()
            raise self._exchange.ended.afresh()
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if wake is not None:
            poll.register(wake, select.POLLIN)
        left = None if until is None else max(0, ceil((until - monotonic()) * 1000))
        ready = dict(poll.poll(left))
        if not ready:
            raise TimeoutError
        events = ready.get(self._sock.fileno(), 0)
        if events & select.POLLOUT:
            self.send()
        return self._receive() if events & ~select.POLLOUT else []

    def _receive(self) -> list[Answer]:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return []
        except OSError as error:
            self._exchange.end(
                Unreachable(f"the connection to whatsappd is lost: {error.strerror}")
            )
            return []
        if not data:
            self._exchange.end(Unreachable(f"whatsappd at {self.path} closed the connection"))
            return []
        answers = []
        for each in self._exchange.receive(data):
            if isinstance(each, Answer):
                answers.append(each)
            else:
                self._notices.append(each)
        return answers


def _connected(path: str, deadline: float | None) -> socket.socket:
    """A nonblocking socket that is connected to the daemon."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline)
        sock.connect(path)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise cannot_connect(path, error) from error
    except BaseException:
        sock.close()
        raise
    return sock
