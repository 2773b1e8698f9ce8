"""The HTTP request with which a connection begins: CONNECT to a proxy, or the WebSocket's upgrade.

h11 parses and answers; here is what the sandbox accepts (RFC 9112; RFC 9110, 9.3.6; RFC 6455, 4).
No WebSocket extension is ever agreed to: whatsmeow offers permessage-deflate, and a server declines
it by not answering it.
"""

from __future__ import annotations

import h11
from wsproto.utilities import generate_accept_token

from whatsappd.sandbox.protocol.violations import ProtocolViolation

#: The longest head of a request, in bytes.
MAX_HEAD = 16 * 1024


class HttpOpening:
    """One request without a body, and its answer: `receive`, then one of the three answers."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._request: h11.Request | None = None
        self._is_received = False

    @property
    def method(self) -> str:
        """The request's method; empty before it has arrived."""
        return self._request.method.decode() if self._request else ""

    @property
    def target(self) -> str:
        """The request's target: a path, or for CONNECT host and port."""
        return self._request.target.decode("latin-1") if self._request else ""

    @property
    def rest(self) -> bytes:
        """What arrived behind the request."""
        return self._http.trailing_data[0]

    def receive(self, data: bytes) -> bool:
        """Take what arrived. Returns whether the request is whole.

        Raises:
            ProtocolViolation: it is no HTTP/1 request, has a body, or a head that is too long.
        """
        try:
            self._http.receive_data(data)
            while not self._is_received:
                event = self._http.next_event()
                if isinstance(event, h11.Request):
                    self._request = event
                elif isinstance(event, h11.EndOfMessage):
                    self._is_received = True
                elif event is h11.NEED_DATA:
                    break
                else:
                    raise ProtocolViolation("an HTTP request with a body")
        except h11.RemoteProtocolError as error:
            raise ProtocolViolation(f"not an HTTP request: {error}") from error
        return self._is_received

    def accept_websocket(self) -> bytes:
        """The answer `101 Switching Protocols`; what follows are the frames of `websocket`.

        Raises:
            ProtocolViolation: the request asks for something else.
        """
        headers = dict(self._request.headers) if self._request else {}
        key = headers.get(b"sec-websocket-key")
        if headers.get(b"upgrade", b"").lower() != b"websocket" or not key:
            raise ProtocolViolation("the HTTP request does not ask for a WebSocket")
        answer = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", generate_accept_token(key)),
        ]
        return self._send(
            h11.InformationalResponse(
                status_code=101, headers=answer, reason=b"Switching Protocols"
            )
        )

    def accept_connect(self) -> bytes:
        """The answer to CONNECT; what follows is for the host that was named.

        Raises:
            ProtocolViolation: the request is another, or more came before this answer.
        """
        if self.method != "CONNECT" or self.rest:
            raise ProtocolViolation("not a CONNECT request of a proxy's client")
        return self._send(
            h11.Response(status_code=200, headers=[], reason=b"Connection established")
        )

    def refuse(self, status: int, reason: str) -> bytes:
        """An answer with an empty body, as `refuse(503, "Service Unavailable")`."""
        headers = [(b"Content-Length", b"0"), (b"Connection", b"close")]
        response = h11.Response(status_code=status, headers=headers, reason=reason.encode())
        return self._send(response) + self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> bytes:
        try:
            return self._http.send(event) or b""
        except h11.LocalProtocolError as error:
            # h11 sees no offer to switch protocols in the request.
            raise ProtocolViolation(f"the HTTP request cannot be answered so: {error}") from error
