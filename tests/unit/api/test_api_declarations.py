"""What the declarations of the methods promise, as a whole."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

from whatsappd import __version__
from whatsappd.api.checking import checked
from whatsappd.api.declaration import Declaration
from whatsappd.api.messages import ListMessages
from whatsappd.api.methods import METHODS
from whatsappd.api.reference import reference
from whatsappd.api.schemas import schemas_of
from whatsappd.errors import InvalidParams

HANDLERS = Path(__file__).parents[3] / "whatsappd" / "handlers"


def test_each_method_is_declared_once() -> None:
    names = [each.name for each in METHODS]
    assert sorted(names) == sorted(set(names))


def test_each_method_that_is_declared_is_answered() -> None:
    """`Method(api.SEND, ...)` stands once for each, but those that the sandbox takes as a list."""
    found = 0
    for path in HANDLERS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Method":
                found += ast.unparse(node.args[0]).startswith("api.")
    assert found == len([each for each in METHODS if not each.name.startswith("sandbox.")])


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
def test_examples_are_what_the_method_takes(method: Declaration[Any, Any]) -> None:
    for example in method.params.examples:
        checked(example, method.params)


def test_the_reference_tells_of_each_method_and_each_argument() -> None:
    text = reference()
    _, schemas = schemas_of(each.params for each in METHODS)
    for method in METHODS:
        heading, _, rest = text.partition(f"### {method.name}\n")
        assert heading != text
        section = rest.partition("\n### ")[0]
        for name in schemas[method.params.__name__].get("properties", {}):
            assert f"| `{name}` |" in section, (method.name, name)


def test_every_argument_of_what_people_call_has_a_meaning() -> None:
    """What only the gateway and the sandbox call may do with names."""
    of_programs = {"gateway.report", "webhook.progress", "webhook.refused_for_good"}
    of_programs |= {"webhook.tested", "webhook.resent", "sandbox.fault"}
    for method in METHODS:
        if method.name in of_programs:
            continue
        _, schemas = schemas_of([method.params])
        properties = schemas[method.params.__name__].get("properties", {})
        for name, field in properties.items():
            assert "description" in field, (method.name, name)


def test_the_version_stands_in_one_place() -> None:
    root = Path(__file__).parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "whatsappd/__init__.py"
    stated = [
        path
        for room in ("whatsappd", "whatsappctl")
        for path in (root / room).rglob("*.py")
        if f'"{__version__}"' in path.read_text()
    ]
    assert stated == [root / "whatsappd" / "__init__.py"]


def test_a_choice_that_is_wrong_within_a_list_is_complained_of_with_all_choices() -> None:
    with pytest.raises(
        InvalidParams, match=r"^states\[1\]: .*\(accepted: queued, sending, "
    ) as told:
        checked({"states": ["sent", "nope"]}, ListMessages)
    assert told.value.data["field"] == "states"
