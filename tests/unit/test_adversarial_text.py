"""Text that others write takes time in proportion to its length, whatever it says.

One look at 64 KB with a quadratic expression takes seconds, during which nothing else happens.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import process_time
from typing import Any

import msgspec
import pytest

from whatsappd.api.checking import checked
from whatsappd.api.messages import SendMessage
from whatsappd.config.quoting import masked
from whatsappd.engines.neonize.worker.send_errors import classify
from whatsappd.errors import InvalidParams, WhatsappdError
from whatsappd.model.company import validate_company
from whatsappd.model.jid import parse_jid, parse_recipient
from whatsappd.wire.escape import printable, safe_json

SIZE = 65_536
#: Processor seconds. Linear work on SIZE takes some milliseconds, quadratic work many seconds.
ENOUGH = 1.0


class Params(msgspec.Struct, forbid_unknown_fields=True):
    company: str = ""
    wait: Any = None


def choose(text: str) -> None:
    checked({"company": "acme", "to": "1", "text": "x", "wait": text}, SendMessage)


def name_unknown(text: str) -> None:
    checked({text: 1}, Params)


TAKERS: dict[str, Callable[[str], object]] = {
    "company": validate_company,
    "recipient": parse_recipient,
    "jid": parse_jid,
    "whatsmeow's error": classify,
    "a choice": choose,
    "a parameter's name": name_unknown,
    "a setting": masked,
    "a terminal": printable,
    "JSON": safe_json,
}
UNITS = [
    "1", "1.", "1:", "12345.", "-", " ", "\n", "@", "://a:", "?password=", "&", "'\"`", " - at `$.",
    "panic: '", "no LID found for ", "server returned error ", "Got 401 ", "info query returned ",
    "\x1b", "\u200d", "é", "A", "\\", "[", "{",
]  # fmt: skip


@pytest.mark.parametrize("taker", TAKERS)
def test_nothing_takes_more_than_linear_time(taker: str):
    for unit in UNITS:
        text = (unit * SIZE)[:SIZE]
        for given in (text, f"@{text}", f"{text}@", f"redis://{text}"):
            began = process_time()
            with suppress(WhatsappdError, ValueError):
                TAKERS[taker](given)
            assert process_time() - began < ENOUGH, (unit, given[:10])


def test_a_complaint_names_the_field_whatever_it_quotes():
    with pytest.raises(InvalidParams) as caught:
        choose(" - at `$.company`" * 5000)
    assert caught.value.data["field"] == "wait"
    assert len(caught.value.message) < 500
