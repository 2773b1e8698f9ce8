"""Values as JSON: one encoder for answers, problems, server-sent events, WebSocket and webhooks.

Bytes are base64, as in `whatsappctl --json`, and what could break a line or command a terminal is
escaped, so that a document is one line for every reader. Whoever parses it gets the same value at
each door.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import JSONResponse

from whatsappd.wire.escape import safe_json


def json_text(value: Any) -> str:
    return safe_json(msgspec.json.encode(value).decode())


class JsonAnswer(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json_text(content).encode()
