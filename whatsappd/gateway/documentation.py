"""`/openapi.json`, and the same as plain HTML at `/docs`: no script, no other host."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from whatsappd.api.declaration import NoParams
from whatsappd.gateway.answers import HTML, HttpAnswer, as_json
from whatsappd.gateway.openapi import document_of
from whatsappd.gateway.requests import RoutedRequest
from whatsappd.gateway.routing import Possible, Route, Routes

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: var(--soft); padding: .6rem; overflow-x: auto; border-radius: .3rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0;
  border-bottom: 1px solid var(--line); }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; }
b.method { display: inline-block; min-width: 4.5em; }
"""


def documentation_of(documented: Iterable[Route]) -> Routes:
    """The routes that tell of these routes."""
    routes = Routes("documentation", is_documented=False)
    document = document_of(documented)

    @routes.route("GET", "/openapi.json", "", scope=None, answers={200: Possible()})
    async def get_openapi(_asked: RoutedRequest[NoParams, NoParams]) -> HttpAnswer:
        return as_json(document)

    @routes.route("GET", "/docs", "", scope=None, answers={200: Possible()})
    async def get_docs(_asked: RoutedRequest[NoParams, NoParams]) -> HttpAnswer:
        headers = {"content-security-policy": CONTENT_SECURITY_POLICY}
        return HttpAnswer(page(document).encode(), media_type=HTML, headers=headers)

    return routes


def page(document: dict[str, Any]) -> str:
    """The whole page for an OpenAPI document."""
    info = document["info"]
    groups: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(document, path, method, operation))
    sections = "".join(
        f"<h2 id='{escape(tag)}'>{escape(tag.capitalize())}</h2>{''.join(parts)}"
        for tag, parts in groups.items()
    )
    schemas = "".join(
        f"<details id='schema-{escape(name)}'><summary><code>{escape(name)}</code></summary>"
        f"{_prose(schema.get('description', ''))}{_fields(schema)}</details>"
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"{_prose(info.get('description', ''))}"
        "<p>For programs: <a href='openapi.json'>openapi.json</a>. How to begin, and what to know: "
        "<a href='manual/gateway'>the guide</a>.</p>"
        f"<main>{sections}<h2 id='schemas'>Schemas</h2>{schemas}</main></body></html>"
    )


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code></td><td>{escape(each['in'])}</td>"
        f"<td>{_kind(each.get('schema', {}))}</td>"
        f"<td>{_inline(each.get('description', ''))}</td></tr>"
        for each in operation.get("parameters", ())
    )
    parameters = f"<h4>Parameters</h4><table>{rows}</table>" if rows else ""
    body = _body(document, operation.get("requestBody", {}))
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{_inline(_resolved(document, answer)['description'])}"
        f"</td><td>{_contents(_resolved(document, answer))}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<details><summary><b class='method'>{method.upper()}</b> <code>{escape(path)}</code> "
        f"{escape(operation.get('summary', ''))}</summary>"
        f"{_prose(operation.get('description', ''))}{parameters}{body}"
        f"<h4>Answers</h4><table>{answers}</table></details>"
    )


def _body(document: dict[str, Any], body: dict[str, Any]) -> str:
    found = ""
    for media_type, content in body.get("content", {}).items():
        schema = content.get("schema", {})
        found += f"<h4>Body</h4><p><code>{escape(media_type)}</code> {_kind(schema)}</p>"
        for example in _resolved(document, schema).get("examples", ()):
            found += f"<pre>{escape(json.dumps(example, indent=2, ensure_ascii=False))}</pre>"
    return found


def _contents(answer: dict[str, Any]) -> str:
    return "<br>".join(
        f"<code>{escape(media_type)}</code> {_kind(content.get('schema', {}))}"
        for media_type, content in answer.get("content", {}).items()
    )


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{'' if name in required else ' (optional)'}</td>"
        f"<td>{_kind(field)}</td><td>{_inline(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>"


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href='#schema-{escape(name)}'>{escape(name)}</a>"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_kind(each) for each in schema[several])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return escape(str(schema.get("type", "any")))


def _resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        found: Any = document
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.strip().split("\n\n") if part)


def _inline(text: str) -> str:
    """The little Markdown that our texts use: `code` and **strong**."""
    pieces = escape(text).split("`")
    for place in range(1, len(pieces), 2):
        pieces[place] = f"<code>{pieces[place]}</code>"
    strong = "".join(pieces).split("**")
    for place in range(1, len(strong), 2):
        strong[place] = f"<strong>{strong[place]}</strong>"
    return "".join(strong)
