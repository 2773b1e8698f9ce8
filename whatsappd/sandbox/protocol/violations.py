"""What clients do wrong: break the protocol, or ask for what there is not.

Violations are raised by every codec of the package and caught in one place, `connection`, which
closes that client's connection and leaves all others alone. A failed request is answered (`iq`).
"""

from __future__ import annotations


class ProtocolViolation(Exception):
    """The bytes or stanzas a client sent are not what the protocol allows; the text says how."""


class RequestFailed(Exception):
    """A request (`<iq>`) that is answered with `<error code text>`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


def not_implemented() -> RequestFailed:
    """What the real server answers to requests it does not know."""
    return RequestFailed(501, "feature-not-implemented")
