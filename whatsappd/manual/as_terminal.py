"""A guide as text for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import NamedTuple

from markdown_it.tree import SyntaxTreeNode

from whatsappd.manual.parsed import (
    GAP,
    blocks,
    column_widths,
    guide_of,
    is_prose,
    needs_gaps,
    parse,
    plain,
    rows,
)

_BOLD, _CODE, _ITALIC = "1", "36", "3"
#: Within a piece of code; a line is not broken there.
_SPACE = "\N{NO-BREAK SPACE}"
#: Longer pieces of code are broken at their spaces.
_LONGEST_CODE = 40


class _Piece(NamedTuple):
    text: str
    style: str


#: What is not broken: pieces without a space between them.
_Word = list[_Piece]


def as_terminal(text: str, *, width: int = 80, styled: bool = False) -> str:
    """The guide `text`, in lines of at most `width` columns (code is never broken).

    Args:
        styled: with bold type and colour; else plain text, with underlined headings.
    """
    return "\n".join(_Page(styled).show(blocks(parse(text)), width)) + "\n"


class _Page:
    def __init__(self, styled: bool) -> None:
        self._styled = styled

    def show(self, nodes: Iterable[SyntaxTreeNode], width: int) -> Iterator[str]:
        """The lines of blocks, one behind the other, with an empty line between them."""
        for number, node in enumerate(nodes):
            if number:
                yield ""
            yield from self._block(node, width)

    def _block(self, node: SyntaxTreeNode, width: int) -> Iterator[str]:
        match node.type:
            case "heading":
                yield from self._heading(node)
            case "paragraph":
                yield from self._wrapped(self._words(node), width)
            case "fence" | "code_block":
                yield from ("    " + line if line else "" for line in node.content.splitlines())
            case "bullet_list" | "ordered_list":
                yield from self._list(node, width)
            case "table":
                yield from self._table(node, width)
            case "blockquote":
                yield from ("  " + line for line in self.show(blocks(node), width - 2))
            case _:
                raise NotImplementedError(f"{node.type} in a guide")

    def _heading(self, node: SyntaxTreeNode) -> Iterator[str]:
        title = plain(node)
        if self._styled:
            yield self._in_style(title, _BOLD)
            return
        yield title
        if (underline := {"h1": "=", "h2": "-", "h3": "~"}.get(node.tag)) is not None:
            yield underline * len(title)

    def _list(self, node: SyntaxTreeNode, width: int) -> Iterator[str]:
        is_loose = any(len(blocks(item)) > 1 for item in node.children)
        for number, item in enumerate(node.children, 1):
            mark = "- " if node.type == "bullet_list" else f"{number}. "
            if number > 1 and is_loose:
                yield ""
            for place, line in enumerate(self.show(blocks(item), width - len(mark))):
                yield ((" " * len(mark) if place else mark) + line) if line else ""

    def _table(self, node: SyntaxTreeNode, width: int) -> Iterator[str]:
        words = [[self._words(cell) for cell in row] for row in rows(node)]
        texts = [[_joined(cell) for cell in row] for row in words]
        widths = column_widths(texts, width)
        if widths is None:
            titles = texts[0]
            if is_prose(row[-1] for row in texts):
                titles[-1] = ""
            yield from self._records(titles, words[1:], width)
            return
        header, *others = words
        if any(texts[0]):
            yield from self._row(header, widths, _BOLD)
            yield "  ".join("-" * wide for wide in widths)
        has_gaps = needs_gaps(texts, widths)
        for number, row in enumerate(others):
            if number and has_gaps:
                yield ""
            yield from self._row(row, widths)

    def _row(self, row: list[list[_Word]], widths: list[int], style: str = "") -> Iterator[str]:
        cells = [
            list(self._wrapped(cell, wide, style=style))
            for cell, wide in zip(row, widths, strict=True)
        ]
        for line in zip_longest(*cells, fillvalue=""):
            columns = map(self._padded, line, widths)
            yield (" " * GAP).join(columns).rstrip()

    def _records(
        self, titles: list[str], table: list[list[list[_Word]]], width: int
    ) -> Iterator[str]:
        """A table that is too wide for columns: the first cell, and the others below it."""
        for number, (first, *others) in enumerate(table):
            if number:
                yield ""
            yield from self._wrapped(first, width, style=_BOLD)
            for title, cell in zip(titles[1:], others, strict=True):
                if cell:
                    named = [[_Piece(f"{title}:", "")], *cell] if title else cell
                    yield from self._indented(named, width)

    def _indented(self, words: list[_Word], width: int) -> Iterator[str]:
        return ("    " + line for line in self._wrapped(words, width - 4))

    def _padded(self, line: str, width: int) -> str:
        return line + " " * (width - _visible(line))

    def _words(self, node: SyntaxTreeNode) -> list[_Word]:
        """The words of a paragraph, a heading or a cell."""
        words: list[_Word] = [[]]
        for piece in self._pieces(node, ""):
            for number, part in enumerate(piece.text.split(" ")):
                if number:
                    words.append([])
                if part:
                    words[-1].append(_Piece(part.replace(_SPACE, " "), piece.style))
        return [word for word in words if word]

    def _pieces(self, node: SyntaxTreeNode, style: str) -> Iterator[_Piece]:
        match node.type:
            case "text":
                yield _Piece(node.content, style)
            case "softbreak" | "hardbreak":
                yield _Piece(" ", style)
            case "code_inline":
                code = node.content if self._styled else f"`{node.content}`"
                if len(code) <= _LONGEST_CODE:
                    code = code.replace(" ", _SPACE)
                yield _Piece(code, _CODE)
            case "link":
                yield from self._inside(node, style)
                yield _Piece(_target(node), style)
            case "strong":
                yield from self._inside(node, _BOLD)
            case "em":
                yield from self._inside(node, _ITALIC)
            case "html_inline":
                return
            case _:
                yield from self._inside(node, style)

    def _inside(self, node: SyntaxTreeNode, style: str) -> Iterator[_Piece]:
        for child in node.children:
            yield from self._pieces(child, style)

    def _wrapped(self, words: list[_Word], width: int, *, style: str = "") -> Iterator[str]:
        line, used = "", 0
        for word in words:
            length = sum(len(piece.text) for piece in word)
            if used and used + 1 + length > width:
                yield line
                line, used = "", 0
            if used:
                line, used = line + " ", used + 1
            line += "".join(self._in_style(piece.text, piece.style or style) for piece in word)
            used += length
        if line:
            yield line

    def _in_style(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._styled and style else text


def _joined(words: list[_Word]) -> str:
    return " ".join("".join(piece.text for piece in word).replace(" ", _SPACE) for word in words)


def _visible(line: str) -> int:
    """The columns that a line takes, its escapes not counted."""
    length, rest = 0, line
    while "\x1b[" in rest:
        before, _, rest = rest.partition("\x1b[")
        length += len(before)
        rest = rest.partition("m")[2]
    return length + len(rest)


def _target(link: SyntaxTreeNode) -> str:
    """What a reader on paper needs to follow a link."""
    href = str(link.attrs["href"])
    if (topic := guide_of(href)) is not None:
        return f" (help{_SPACE}{topic})"
    if href.startswith("#") or href == plain(link):
        return ""
    return f" <{href}>"
