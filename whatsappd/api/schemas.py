"""JSON Schema of declared structures: for the OpenAPI document and for the reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

#: A JSON Schema, as a map.
Schema = dict[str, Any]
#: Where OpenAPI has them.
REFERENCE = "#/components/schemas/{name}"


def schemas_of(types: Iterable[Any]) -> tuple[list[Schema], dict[str, Schema]]:
    """The schema of each type, and by name those of the structures that they refer to.

    Structures that have `examples` bring them along.
    """
    types = list(types)
    found, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    for each in _structures(types):
        examples = getattr(each, "examples", ())
        if examples and each.__name__ in components:
            components[each.__name__]["examples"] = list(examples)
    return list(found), components


def name_of(schema: Schema) -> str | None:
    """The structure that a schema refers to."""
    reference = schema.get("$ref")
    return None if reference is None else str(reference).rpartition("/")[2]


def words(schema: Schema) -> str:
    """What a schema takes, in words: `integer from 1 to 200`, `list of Message`, `ask, resend`."""
    name = name_of(schema)
    if name is not None:
        return name
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(words(each) for each in schema[several])
    if "enum" in schema:
        return ", ".join("null" if each is None else str(each) for each in schema["enum"])
    if "const" in schema:
        return str(schema["const"]).lower()
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {words(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {words(schema['additionalProperties'])}"
    return f"{_KINDS.get(kind, kind)}{_bounds(schema)}"


_KINDS = {"object": "map", "string": "text", "number": "number", "null": "null"}
#: Bounds that are those of a 64-bit integer tell nobody anything.
_HUGE = 2**53


def _bounds(schema: Schema) -> str:
    low = schema.get("minimum", schema.get("minLength"))
    high = schema.get("maximum", schema.get("maxLength"))
    unit = " characters" if "maxLength" in schema else ""
    if high is not None and high > _HUGE:
        high = None
    if low is not None and high is not None:
        return f" from {low} to {high}{unit}" if not unit else f" of {low} to {high}{unit}"
    if high is not None:
        return f" of at most {high}{unit}" if unit else f" up to {high}"
    return f" from {low}" if low is not None and not unit else ""


def _structures(types: Iterable[Any]) -> list[type[msgspec.Struct]]:
    """The structures among these types, and in their unions."""
    found: list[type[msgspec.Struct]] = []
    for each in types:
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            found.append(each)
    return found
