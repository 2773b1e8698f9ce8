"""A guide as a tree, and what the three ways to show it share: links between guides, anchors, and
the widths of a table's columns.

Only what GitHub shows too is used: CommonMark and tables. Comments (`<!-- … -->`) mark blocks for
tests and for `generated`; no reader shows them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

#: Empty columns between two columns of a table.
GAP = 2
#: A column of sentences that is narrower is hard to read.
_NARROW = 24
#: A cell that is longer is a sentence.
_PROSE = 40


def parse(text: str) -> SyntaxTreeNode:
    """The whole tree of a guide, comments left out at its top level."""
    return SyntaxTreeNode(parser().parse(text))


def parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table")


def blocks(node: SyntaxTreeNode) -> list[SyntaxTreeNode]:
    """The children that are shown."""
    return [child for child in node.children if child.type != "html_block"]


def plain(node: SyntaxTreeNode) -> str:
    """The words of a heading or of a cell, without their marks."""
    if node.type in ("text", "code_inline"):
        return node.content
    if node.type in ("softbreak", "hardbreak"):
        return " "
    return "".join(plain(child) for child in node.children)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def guide_of(href: str) -> str | None:
    """The topic that a link leads to; None: it leads elsewhere."""
    found = re.fullmatch(r"([a-z]+)\.md(?:#.*)?", href)
    return found[1] if found else None


def rows(table: SyntaxTreeNode) -> list[list[SyntaxTreeNode]]:
    """The cells of a table, row by row; the first row holds the titles."""
    return [row.children for part in table.children for row in part.children]


def column_widths(cells: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """How wide each column of a table is, so that all of them fit into `room`.

    A column is as wide as its longest cell, or less, if there is no room, but never narrower than
    its longest word. None: there is no room for columns that can be read.
    """
    columns = list(zip(*cells, strict=True))
    wanted = [max(map(len, column)) for column in columns]
    widths = [max(len(word) for cell in column for word in cell.split(" ")) for column in columns]
    left = room - GAP * (len(columns) - 1) - sum(widths)
    if left < 0:
        return None
    while left and (cut := [at for at, width in enumerate(widths) if width < wanted[at]]):
        widths[min(cut, key=widths.__getitem__)] += 1
        left -= 1
    is_cut = any(width < min(wanted[at], _NARROW) for at, width in enumerate(widths))
    return None if is_cut else widths


def needs_gaps(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> bool:
    """Whether there must be space between rows: where a first cell takes several lines, one cannot
    see otherwise where a row begins."""
    return any(len(row[0]) > widths[0] for row in cells)


def is_prose(texts: Iterable[str]) -> bool:
    """Whether a column holds sentences, which need no title when a table is shown row by row."""
    return max(map(len, texts)) > _PROSE
