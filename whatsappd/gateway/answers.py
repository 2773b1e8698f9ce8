"""Answers, and values as JSON.

There is one encoder, for answers, problems, server-sent events, WebSocket and webhooks: bytes are
base64, as in `whatsappctl --json`, and what could break a line or command a terminal is escaped, so
that a document is one line for every reader. Whoever parses it gets the same value at each door.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from whatsappd.wire.escape import safe_json

JSON = "application/json"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
#: For what must be kept nowhere on its way: secrets, and codes that are good for seconds.
NOT_KEPT = {"cache-control": "no-store"}
#: Statuses whose answers have no body, nor a length (RFC 9110, section 8.6).
_BODILESS = frozenset({204, 304})

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def json_text(value: Any) -> str:
    return safe_json(msgspec.json.encode(value).decode())


class HttpAnswer:
    """A whole answer. Names of headers are in lower case."""

    __slots__ = ("body", "headers", "media_type", "status")

    def __init__(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        media_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.body = body
        self.status = status
        self.media_type = media_type
        self.headers = dict(headers or {})

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """All of them, as they are sent."""
        found = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        if self.status not in _BODILESS:
            found.append((b"content-length", str(len(self.body)).encode()))
        if self.media_type is not None:
            found.append((b"content-type", self.media_type.encode()))
        return found

    async def __call__(self, _receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": self.raw_headers,
            }
        )
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def as_json(
    value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpAnswer:
    """The answer that is `value`."""
    return HttpAnswer(json_text(value).encode(), status=status, media_type=JSON, headers=headers)
