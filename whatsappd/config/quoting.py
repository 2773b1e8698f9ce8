"""Values as they are shown: quoted as in TOML, and without passwords."""

from __future__ import annotations

import re


def quoted(text: str) -> str:
    """A TOML basic string (https://toml.io/en/v1.0.0#string)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(_escaped(character) for character in escaped) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x20 or code == 0x7F else character


#: What stands before a password; that ends before the last `@`, and may hold any character.
_LOGIN = re.compile(r"://[^:@/]*:")
#: What stands where a port belongs and is none: a login whose `@` was forgotten.
_LOGIN_ALONE = re.compile(r"(://[^:@/\[]*:)(?!\*\*\*@|[0-9]{1,5}(?:[/?\"]|$)).*", re.DOTALL)
_PASSWORD_OPTION = re.compile(r"([?&]password=)[^&\s]*")


def masked(text: str) -> str:
    """`text` without the password of the URL in it, also if the URL is written wrongly."""
    before, at, behind = text.rpartition("@")
    if at and (login := _LOGIN.search(before)):
        text = f"{before[: login.end()]}***@{behind}"
    text = _LOGIN_ALONE.sub(r"\1***", text)
    return _PASSWORD_OPTION.sub(r"\1***", text)
