"""The token dictionary: the common strings that stanzas name by one byte or two.

The dictionary belongs to a version, which the stream header names (`WA`, 6, dictionary version).
whatsmeow has it in binary/token/token.go; the sandbox takes it from there at run time
(`neonize_library.token_extraction`).
"""

from __future__ import annotations

from typing import NamedTuple

#: Tokens of one byte.
SINGLE_TOKENS = 236
#: Tables of tokens of two bytes; the first byte (236 to 239) chooses the table.
DOUBLE_TABLES = 4
#: Tokens in each of these tables.
DOUBLE_TOKENS = 256

#: Token 1. Token 0 is empty: the byte 0 is an empty list.
FIRST_TOKEN = "xmlstreamstart"  # noqa: S105  # no password
_SECOND_TOKEN = "xmlstreamend"  # noqa: S105
_FIRST_DOUBLES = ("read-self", "active", "fbns")


class TokenDictionary(NamedTuple):
    """`single[b]` is what the byte b means; `double[t][b]` what the bytes 236+t, b mean."""

    single: tuple[str, ...]
    double: tuple[tuple[str, ...], ...]

    @property
    def is_whole(self) -> bool:
        """Whether all tables have their size, and begin as in all versions seen so far."""
        return (
            len(self.single) == SINGLE_TOKENS
            and self.single[:3] == ("", FIRST_TOKEN, _SECOND_TOKEN)
            and len(self.double) == DOUBLE_TABLES
            and all(len(table) == DOUBLE_TOKENS for table in self.double)
            and self.double[0][: len(_FIRST_DOUBLES)] == _FIRST_DOUBLES
        )
