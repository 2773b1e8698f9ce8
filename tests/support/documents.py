"""The README and the guides, as tests read them: what they show is run, loaded or compared.

A block of code is marked by the comment that stands before it, such as `<!-- test:batch -->`. A
mark stands once in all of them together.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from whatsappd.manual.topics import TOPICS, path_of

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"(?:^[ ]*<!-- (?P<mark>[\w:]+) -->\n)?(?P<indent>[ ]*)```(?P<language>\w*)\n"
    r"(?P<text>.*?)^[ ]*```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    document: str
    mark: str
    language: str
    text: str


def documents() -> dict[str, str]:
    """The README and every guide, by file name."""
    paths = [ROOT / "README.md", *map(path_of, TOPICS)]
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def blocks() -> list[Block]:
    """Every block of code that they show."""
    return [
        Block(name, found["mark"] or "", found["language"], textwrap.dedent(found["text"]))
        for name, text in documents().items()
        for found in _BLOCK.finditer(text)
    ]


def block(mark: str) -> str:
    """The block with that mark."""
    [found] = [each.text for each in blocks() if each.mark == mark]
    return found
