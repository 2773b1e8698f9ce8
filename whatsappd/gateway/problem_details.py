"""Errors as RFC 9457 problem details: the one place where they become HTTP answers.

What the daemon answers carries its HTTP status in the table of `whatsappd.errors`; the few errors
that only HTTP has (no such path, wrong media type) are `HttpError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from whatsappd.api.declaration import Result
from whatsappd.errors import QueueFull, RateLimited, WhatsappdError
from whatsappd.gateway.answers import HttpAnswer, json_text

MEDIA_TYPE = "application/problem+json"
#: Seconds after which a client may try again when nobody knows better: the daemon restarts in one.
_SOON = 1
#: Seconds for a queue that is full: it empties at the rate of the company's limits.
_LATER = 10


class WrongField(Result):
    field: str
    message: str


class ProblemDetails(Result):
    """RFC 9457 problem details. `name` (and `code`) are stable; `detail` is for people."""

    type: Annotated[str, Meta(examples=["urn:whatsappd:problem:unknown_company"])]
    title: str
    status: int
    detail: str
    name: Annotated[str, Meta(examples=["unknown_company"])]
    code: Annotated[int | UnsetType, Meta(description="The RPC's code, where it has one.")] = UNSET
    errors: Annotated[
        list[WrongField] | UnsetType, Meta(description="Which fields are wrong, and how.")
    ] = UNSET
    data: Annotated[dict[str, Any] | UnsetType, Meta(description="What programs may need.")] = UNSET


class HttpError(Exception):
    """An error that the RPC does not know. `name` is stable, as the names of the table are."""

    def __init__(
        self,
        status: int,
        name: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        **data: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message
        self.headers = {key.lower(): value for key, value in (headers or {}).items()}
        self.data = data


#: What a 401 asks for.
_CHALLENGE = {"www-authenticate": 'Bearer realm="whatsappd"'}


def unauthenticated(message: str) -> HttpError:
    return HttpError(401, "unauthenticated", message, headers=_CHALLENGE)


def problem(error: WhatsappdError | HttpError) -> HttpAnswer:
    """The answer for an error."""
    if isinstance(error, HttpError):
        status, code, headers = error.status, None, error.headers
    else:
        status, code, headers = error.http_status, error.code, _headers(error)
    return HttpAnswer(
        json_text(_body(status, code, error.name, error.message, error.data)).encode(),
        status=status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def as_text(error: WhatsappdError | HttpError) -> str:
    """The same document for streams, which have no status any more."""
    return problem(error).body.decode()


def _body(
    status: int, code: int | None, name: str, message: str, data: dict[str, Any]
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": f"urn:whatsappd:problem:{name}",
        "title": name.replace("_", " ") if name else HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "name": name,
    }
    if code is not None:
        body["code"] = code
    data = dict(data)
    errors = data.pop("errors", None)
    if errors is None and isinstance(data.get("field"), str):
        errors = [{"field": data["field"], "message": message}]
    if errors is not None:
        body["errors"] = errors
    if data:
        body["data"] = data
    return body


def _headers(error: WhatsappdError) -> dict[str, str]:
    if isinstance(error, RateLimited | QueueFull):
        wait_ms = error.data.get("retry_after_ms")
        seconds = math.ceil(wait_ms / 1000) if isinstance(wait_ms, int | float) else _LATER
        return {"retry-after": str(max(1, seconds))}
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        return _CHALLENGE
    if error.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"retry-after": str(_SOON)}
    return {}
