"""The table of errors: each declared once, whole, and found again by its name."""

from __future__ import annotations

import pytest

from whatsappd.errors import (
    ERRORS,
    EXIT_CONFLICT,
    Denied,
    WhatsappdError,
    WrongState,
    all_errors,
    error_from_wire,
)


def test_no_code_and_no_name_stands_for_two_errors() -> None:
    assert len({kind.code for kind in all_errors()}) == len(all_errors()) == len(ERRORS)
    with pytest.raises(TypeError, match="Denied has the name denied already"):

        class Twice(WhatsappdError, code=999, name="denied", remedy="None."):
            """An error that takes another one's name."""

    assert ERRORS["denied"] is Denied


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.name)
def test_each_error_says_what_it_means_and_what_to_do(kind: type[WhatsappdError]) -> None:
    assert kind.meaning().endswith(".")
    assert kind.remedy.endswith(".")
    assert 100 <= kind.code < 600
    assert 400 <= kind.http_status < 600
    assert kind.exit_code > 0


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.name)
def test_an_error_comes_back_from_the_wire_as_its_own_class(kind: type[WhatsappdError]) -> None:
    told = error_from_wire(kind("acme is away", company="acme").as_wire())
    assert (type(told), told.message, told.data) == (kind, "acme is away", {"company": "acme"})


def test_an_error_of_a_newer_daemon_keeps_its_message() -> None:
    told = error_from_wire({"code": 999, "name": "not_yet_known", "message": "too new", "data": 5})
    assert (type(told), told.message, told.data) == (WhatsappdError, "too new", {})


def test_what_a_declaration_leaves_out_is_not_another_errors() -> None:
    assert WrongState.exit_code == EXIT_CONFLICT
    assert WhatsappdError.exit_code == 1
