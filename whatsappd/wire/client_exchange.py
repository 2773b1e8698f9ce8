"""The client's end of the RPC without a socket: bytes in; answers and notices, and bytes out.

Two thin lives move its bytes: `rpc.client` on trio, and `whatsappctl.connection` blocking. What is
decided here is the same for both: which request an answer belongs to, and when and why a
connection is over:

    open ──> ended
       └ the daemon said its last word; it sent what is no message, a request, or an answer that
         nobody waits for; or whoever moves the bytes lost the socket, or gave up

Nothing is asked or taken any more after that. What came before the end still counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from whatsappd.errors import (
    Denied,
    Malformed,
    TimedOut,
    Unreachable,
    WhatsappdError,
    error_from_wire,
)
from whatsappd.wire.frames import MessagePackReader
from whatsappd.wire.rpc import (
    ERROR,
    MAX_MSGID,
    RESPONSE,
    Request,
    Response,
    is_last_word,
    named_arguments,
    pack_request,
    parse_message,
)


class Answer(NamedTuple):
    """What became of one request: its result, or the error that the daemon answered."""

    msgid: int
    error: WhatsappdError | None
    result: Any


class Notice(NamedTuple):
    """A notification from the daemon."""

    method: str
    arguments: dict[str, Any]


class ClientExchange:
    """One connection to the daemon, as far as bytes tell of it.

    Attributes:
        ended: why nothing can be asked any more; None: it can.
    """

    def __init__(self) -> None:
        self.ended: WhatsappdError | None = None
        self._reader = MessagePackReader()
        self._unanswered: set[int] = set()
        self._last_msgid = 0

    def request(
        self, method: str, arguments: dict[str, Any], *, actor: str | None = None
    ) -> tuple[int, bytes]:
        """A request's id, by which its answer is known, and the bytes to send.

        Args:
            actor: in whose name it is made (see `wire.rpc`).

        Raises:
            InvalidParams: an argument holds something that MessagePack has no form for.
            WhatsappdError: the connection has ended, and why.
        """
        if self.ended is not None:
            raise self.ended.afresh()
        msgid = self._last_msgid % MAX_MSGID + 1
        while msgid in self._unanswered:
            msgid = msgid % MAX_MSGID + 1
        packed = pack_request(msgid, method, arguments, actor=actor)
        self._last_msgid = msgid
        self._unanswered.add(msgid)
        return msgid, packed

    def receive(self, data: bytes) -> list[Answer | Notice]:
        """What `data` completes, in order. Look at `ended` when all of it is dealt with.

        Args:
            data: at most READ_SIZE bytes.
        """
        told: list[Answer | Notice] = []
        if self.ended is None:
            try:
                for value in self._reader.feed(data):
                    told.append(self._told(value))
            except WhatsappdError as error:
                self.end(error)
        return told

    def end(self, error: WhatsappdError) -> None:
        """Nothing more can be sent or received, because of `error`. The first reason is kept."""
        if self.ended is None:
            self.ended = error
            self._unanswered.clear()

    def _told(self, value: Any) -> Answer | Notice:
        """Raises: WhatsappdError: the connection ends with this value."""
        # Nearly every message is an answer without surprises: cheaper than parse_message.
        if type(value) is list and len(value) == 4 and value[0] == RESPONSE and value[2] is None:
            msgid = value[1]
            if type(msgid) is int and msgid in self._unanswered and type(value[0]) is int:
                self._unanswered.discard(msgid)
                return Answer(msgid, None, value[3])
        message = parse_message(value)
        if isinstance(message, Request):
            raise Malformed("the daemon sent a request")
        if isinstance(message, Response):
            if message.msgid not in self._unanswered:
                raise Malformed(f"the daemon answered what was not asked: {message.msgid}")
            self._unanswered.discard(message.msgid)
            if message.error is None:
                return Answer(message.msgid, None, message.result)
            return Answer(message.msgid, error_from_wire(message.error), None)
        arguments = named_arguments(message.params)
        if message.method == ERROR and is_last_word(arguments):
            raise error_from_wire(arguments)  # the daemon closes the connection behind it
        return Notice(message.method, arguments)


def cannot_connect(path: str, error: OSError) -> WhatsappdError:
    """What every client says when its connection to the socket at `path` is not taken."""
    if isinstance(error, PermissionError):
        return Denied(
            f"no permission to connect to {path}: ask to be added to the group that owns it",
            path=path,
        )
    if isinstance(error, TimeoutError):
        return TimedOut(
            f"whatsappd at {path} takes no connection: it hangs or is overloaded", path=path
        )
    return Unreachable(
        f"whatsappd is not running at {path} ({error.strerror or error}): "
        "start it with `whatsappd run` or `systemctl start whatsappd`",
        path=path,
    )
