"""A connection that holds many requests at a time, for `send --batch`.

`connection.Connection` waits for each answer. Here requests are posted, and `turn` moves bytes both
ways for a while, so that neither side can wait for the other with full buffers.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from whatsappctl.connection import connect
from whatsappd.errors import Malformed, Unreachable, WhatsappdError, error_from_wire
from whatsappd.wire.frames import READ_SIZE, MessagePackReader
from whatsappd.wire.rpc import (
    Notification,
    Response,
    named_arguments,
    pack_request,
    parse_message,
)


class Pipeline:
    """Connected from the beginning; raises as `connection.Connection` does."""

    def __init__(self, path: str, *, deadline: float | None) -> None:
        self.path = path
        self._sock = connect(path, deadline)
        self._sock.setblocking(False)
        self._frames = MessagePackReader()
        self._unsent = bytearray()
        self._last_word: WhatsappdError | None = None

    @property
    def unsent(self) -> int:
        """Bytes that the daemon has not taken yet."""
        return len(self._unsent)

    def close(self) -> None:
        self._sock.close()

    def post(self, msgid: int, method: str, arguments: dict[str, Any]) -> None:
        """Put a request into what `turn` sends."""
        self._unsent += pack_request(msgid, method, arguments)

    def turn(self, timeout: float, wake: socket.socket) -> list[Response]:
        """Send what can be sent, and take the answers that have come.

        Returns without any after `timeout` seconds, or when `wake` becomes readable.

        Raises:
            WhatsappdError: the connection is lost, and why. What was posted may have been done.
        """
        if self._last_word is not None:
            raise self._last_word
        writing = [self._sock] if self._unsent else []
        readable, writable, _ = select.select([self._sock, wake], writing, [], max(0.0, timeout))
        if writable:
            self.send()
        return self._receive() if self._sock in readable else []

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

    def _receive(self) -> list[Response]:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Unreachable(f"the connection to whatsappd is lost: {error.strerror}") from error
        if not data:
            raise Unreachable(f"whatsappd at {self.path} closed the connection")
        answers = []
        for message in map(parse_message, self._frames.feed(data)):
            if isinstance(message, Response):
                answers.append(message)
            elif not isinstance(message, Notification):
                raise Malformed("whatsappd sent a request")
            elif message.method == "error":
                # It closes the connection behind this; the answers before it count.
                self._last_word = error_from_wire(named_arguments(message.params))
        return answers
