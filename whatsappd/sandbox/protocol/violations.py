"""The two errors that clients can cause: they broke the protocol, or a request has no answer."""

from __future__ import annotations


class ProtocolViolation(Exception):
    """The bytes or stanzas that a client sent are not what the protocol allows; the text says how.

    All codecs raise it. `server.connection` catches it, counts it, and closes that client's
    connection; the other clients go on.
    """


class RequestFailed(Exception):
    """A request (`<iq>`) that the server answers with `<error code text>`; `server.iq` does that.

    `code` is a number as HTTP has them: 403, 404, 501.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


def not_implemented() -> RequestFailed:
    """What the real server answers to requests that it does not know."""
    return RequestFailed(501, "feature-not-implemented")
