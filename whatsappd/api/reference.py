"""The reference of all methods as Markdown, for the manual: made of their declarations."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from whatsappd.api.declaration import Concerns, Declaration
from whatsappd.api.methods import METHODS
from whatsappd.api.schemas import Schema, name_of, schemas_of, words

_CONCERNS = {
    Concerns.COMPANY: "the company that it names",
    Concerns.SEVERAL: "companies that the caller may see",
    Concerns.ALL: "all companies",
    Concerns.NONE: "the caller's own connection",
}


def reference(methods: Iterable[Declaration[Any, Any]] = METHODS) -> str:
    """All methods: what each does, takes and answers. Headings begin at level 2."""
    methods = sorted(methods, key=lambda each: each.name.partition(".")[0])
    types = [each for method in methods for each in (method.params, method.result)]
    _, schemas = schemas_of(types)
    own = {each.__name__ for each in types}
    parts = []
    for noun, group in groupby(methods, key=lambda each: each.name.partition(".")[0]):
        parts.append(f"## {noun}\n")
        parts += [_method(method, schemas) for method in group]
    others = sorted(set(schemas) - own)
    if others:
        parts.append("## Structures\n")
        parts += [_structure(name, schemas[name]) for name in others]
    return "\n".join(parts)


def _method(method: Declaration[Any, Any], schemas: dict[str, Schema]) -> str:
    access = "changes something" if method.writes else "only reads"
    text = f"### {method.name}\n\n{_prose(method.doc)}\n\n"
    text += f"It {access}, and is about {_CONCERNS[method.concerns]}.\n\n"
    taken = schemas[method.params.__name__]
    if taken.get("properties"):
        text += "Arguments:\n\n" + _fields(taken, are_arguments=True) + "\n"
    answered = schemas[method.result.__name__]
    if answered.get("properties"):
        text += "Answer:\n\n" + _fields(answered)
    return text


def _structure(name: str, schema: Schema) -> str:
    about = schema.get("description", "")
    return f"### {name}\n\n{_prose(about)}\n\n" + _fields(schema)


def _fields(schema: Schema, *, are_arguments: bool = False) -> str:
    if not schema.get("properties"):
        return f"{words(schema)}\n"
    required = schema.get("required", ())
    lines = ["| name | value | meaning |", "|------|-------|---------|"]
    for name, field in schema["properties"].items():
        meaning = [field.get("description", "")]
        if are_arguments and name not in required:
            default = field.get("default")
            meaning.append("Optional." if default is None else f"Default: `{_shown(default)}`.")
        elif are_arguments:
            meaning.append("Required.")
        value = _linked(field)
        lines.append(
            f"| `{name}` | {value} | {_cell(' '.join(part for part in meaning if part))} |"
        )
    return "\n".join(lines) + "\n"


def _linked(schema: Schema) -> str:
    name = name_of(schema)
    return f"[{name}](#{name.lower()})" if name is not None else _cell(words(schema))


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))
