"""Text that people wrote, made safe for terminals and for formats that end at a line's end.

A name, a text or an error that came from elsewhere may hold characters that command a terminal,
turn the direction of what follows, hide, or look like the end of a line to some reader. Every door
escapes the same ones:

- `printable` for people: tables, errors, the console's log. An escape stands there as `\\x1b`.
- `safe_json` for programs: JSON lines, logs, server-sent events, WebSocket messages. The escape is
  JSON's own `\\u001b`, so whoever parses it gets the value unchanged.

Escaped are the C0 and C1 controls and DEL, what ends a line anywhere (U+0085, U+2028, U+2029), the
marks that turn the direction of writing, what is invisible (Default_Ignorable_Code_Point, as
Unicode calls it), halves of surrogate pairs, and noncharacters. Left as they are: every visible
character, spaces of all widths, the selectors that make an emoji of a sign, and the two joiners
between characters whose scripts or emoji need them (Persian, Hindi, families). Between Latin, Greek
or Cyrillic letters they only make two names look alike, and are escaped.
"""

from __future__ import annotations

import re
from functools import cache

_UNSAFE = (
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiners, fillers
    "\u200b-\u200f"  # zero-width space, the two joiners, marks of direction
    "\u2028-\u202e"  # line and paragraph separators, embeddings and overrides
    "\u2060-\u206f"  # invisible operators, isolates
    "\u3164\ufeff\uffa0\ufff0-\ufffb"  # fillers, byte-order mark, annotations
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # halves of pairs, noncharacters
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # invisible controls of shorthand and music
    "\U000e0000-\U000e0fff"  # tags, and selectors that carry hidden bytes
    "]"
)
_JOINERS = "\u200c\u200d"


@cache
def _unsafe() -> re.Pattern[str]:
    # Compiled when it is needed: it takes as long as importing half of `whatsappctl`.
    return re.compile(_UNSAFE)


def printable(value: object) -> str:
    """`value` as text on one line, with `\\x1b`, `\\n` or `\\u202e` for what is unsafe."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return _unsafe().sub(_as_python_writes, text)


def _as_python_writes(match: re.Match[str]) -> str:
    if _joins(match):
        return match[0]
    return match[0].encode("unicode_escape").decode()


def safe_json(text: str) -> str:
    """JSON `text` of the same value, with nothing unsafe in it.

    Args:
        text: JSON without line breaks between its parts. Other characters outside of its strings
            are JSON's own, which are all safe.
    """
    if text.isascii() and "\x7f" not in text:
        return text  # JSON escapes the other controls of ASCII by itself
    return _unsafe().sub(_as_json_writes, text)


def _as_json_writes(match: re.Match[str]) -> str:
    if _joins(match):
        return match[0]
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 | code >> 10:04x}\\u{0xDC00 | code & 0x3FF:04x}"


def _joins(match: re.Match[str]) -> bool:
    """Whether it is a joiner between two characters that may need one."""
    if match[0] not in _JOINERS:
        return False
    text, place = match.string, match.start()
    return (
        0 < place < len(text) - 1
        and _may_be_joined(text[place - 1])
        and _may_be_joined(text[place + 1])
    )


def _may_be_joined(character: str) -> bool:
    # Hebrew and beyond, without the punctuation that is invisible itself.
    return "\u0590" <= character < "\u2000" or "\u2070" <= character < "\U000e0000"
