"""The OpenAPI 3.1 document: made of the routes, and of the structures that they declare."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from whatsappd import __version__
from whatsappd.api.schemas import REFERENCE, Schema, schemas_of
from whatsappd.gateway.admission import GUARDED
from whatsappd.gateway.answers import JSON
from whatsappd.gateway.problem_details import MEDIA_TYPE, ProblemDetails
from whatsappd.gateway.routing import PATH_TYPES, Possible, Route

_DESCRIPTION = """\
Many WhatsApp accounts, one per company, over REST, WebSocket and server-sent events.

Send `Authorization: Bearer KEY` with each request; `whatsappctl keys create` makes keys. A key has
a scope (`read`, `send` or `admin`, each including the one before) and is for all or some companies.

Errors are RFC 9457 problem details with a stable `name`. Times are integer milliseconds since the
epoch. On 429 and 503 wait for `Retry-After` seconds. Sending again with the same `Idempotency-Key`
is always safe.
"""

#: What each route may answer beside its success, by the kind of route.
_ALWAYS = {
    400: "The request is malformed.",
    401: "The API key is missing, unknown or revoked.",
    403: "The key's scope or companies do not allow it.",
    422: "A field is wrong; `errors` names it.",
    429: "Too many wrong keys, or a limit is reached; see `Retry-After`.",
    431: "The headers are too large.",
    500: "A defect; the log has the details under the reference.",
    503: "The daemon is away, or there is too much to do; see `Retry-After`.",
}
_WITH_COMPANY = {404: "There is no such company or message."}
_WRITING = {
    408: "The body did not arrive in time.",
    409: "The state, or an idempotency key used with other content, does not allow it.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    502: "WhatsApp, or the company's worker, refused it.",
    504: "What was waited for did not happen in time.",
    507: "The daemon's disk is full.",
}
#: What media types beside JSON hold.
_OTHERS: dict[str, Schema] = {"image/png": {"type": "string", "format": "binary"}}


def document_of(routes: Iterable[Route]) -> dict[str, Any]:
    """The document for these routes; those that are not documented are left out."""
    routes = [each for each in routes if each.is_documented]
    types: list[Any] = [ProblemDetails]
    for route in routes:
        types += [each for each in (route.query, route.headers, route.body) if each is not None]
        types += [each.result for each in route.answers.values() if each.result is not None]
    _, schemas = schemas_of(types)
    in_urls = {each.__name__ for route in routes for each in (route.query, route.headers) if each}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "whatsappd", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "."}],  # relative: a proxy may have all of it below a path of its own
        "paths": paths,
        "components": {
            "schemas": {
                name: schema for name, schema in sorted(schemas.items()) if name not in in_urls
            },
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schemas: dict[str, Schema]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.summary,
        "operationId": route.name,
    }
    if route.about:
        operation["description"] = _unwrapped(route.about)
    parameters = [
        *_path_parameters(route.path),
        *_parameters("query", route.query, schemas),
        *(_parameters("header", route.headers, schemas) if route.headers else ()),
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.body_required,
            "content": {JSON: {"schema": _reference(route.body)}},
        }
    answers = {str(status): _answer(each) for status, each in sorted(route.answers.items())}
    if route.path.startswith(GUARDED):
        operation["security"] = [{"apiKey": []}]
        problem = {MEDIA_TYPE: {"schema": _reference(ProblemDetails)}}
        for status, about in sorted(_problems(route).items()):
            answers[str(status)] = {"description": about, "content": problem}
    return {**operation, "responses": answers}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    found = []
    for name in re.findall(r"\{(\w+)\}", path):
        schema = msgspec.json.schema(PATH_TYPES[name])
        about = schema.pop("description", "")
        found.append(
            {"name": name, "in": "path", "required": True, "description": about, "schema": schema}
        )
    return found


def _parameters(
    place: str, declared: type[msgspec.Struct], schemas: dict[str, Schema]
) -> list[dict[str, Any]]:
    schema = schemas.get(declared.__name__, {})
    found = []
    for name, each in schema.get("properties", {}).items():
        value = {key: part for key, part in each.items() if key != "description"}
        found.append(
            {
                "name": name,
                "in": place,
                "required": name in schema.get("required", ()),
                "description": each.get("description", ""),
                "schema": _without_null(value),
            }
        )
    return found


def _without_null(schema: Schema) -> Schema:
    """A parameter of a URL is there or not; it is never null."""
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if not choices:
        return schema
    kept = {key: part for key, part in schema.items() if key not in ("anyOf", "default")}
    return {**kept, **(choices[0] if len(choices) == 1 else {"anyOf": choices})}


def _answer(possible: Possible) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if possible.result is not None:
        content[JSON] = {"schema": _reference(possible.result)}
    for media_type in possible.others:
        content[media_type] = {"schema": _OTHERS.get(media_type, {"type": "string"})}
    told: dict[str, Any] = {"description": possible.about}
    return {**told, "content": content} if content else told


def _problems(route: Route) -> dict[int, str]:
    possible = dict(_ALWAYS)
    if "{company}" in route.path:
        possible |= _WITH_COMPANY
    if "{webhook_id}" in route.path:
        possible[404] = "There is no such webhook or dead letter."
    if route.path.endswith("/qr"):
        possible[409] = "No code is shown now; `data.state` says how the session is."
    if route.path in ("/v1/health", "/v1/metrics"):
        possible[501] = "This daemon does not have it."
    if route.method != "GET":
        possible |= _WRITING
    else:
        # A GET's body is not looked at, but it is read, and refused if it is too large.
        possible |= {status: _WRITING[status] for status in (408, 413, 415)}
    return possible


def _reference(declared: type[msgspec.Struct]) -> Schema:
    return {"$ref": REFERENCE.format(name=declared.__name__)}


def _unwrapped(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))
