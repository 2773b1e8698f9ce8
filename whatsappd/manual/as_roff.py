"""A guide as a man page: roff with the `man` macros, and `tbl` for tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from markdown_it.tree import SyntaxTreeNode

from whatsappd.manual.parsed import (
    blocks,
    column_widths,
    guide_of,
    is_prose,
    needs_gaps,
    parse,
    plain,
    rows,
)

#: The columns of text that `man` has on a terminal of 80.
_WIDTH = 71


def as_roff(text: str, *, name: str, about: str, version: str) -> str:
    """The guide `text` as a page of section 7.

    Args:
        name: the page's name, such as `whatsappd-sending`.
        about: one line about it, without a full stop, for `apropos`.
    """
    lines = [
        *header(name, 7, about=about, version=version),
        *_blocks(blocks(parse(text))),
        ".SH SEE ALSO",
        r".BR whatsappctl (1),",
        r".BR whatsappd (1)",
    ]
    return "\n".join(lines) + "\n"


def header(name: str, section: int, *, about: str, version: str) -> list[str]:
    """The first lines of every page."""
    return [
        "'\\\" t",  # tells `man` that there are tables
        f'.TH "{name.upper()}" "{section}" "" "whatsappd {version}" "whatsappd"',
        ".nh",  # names and commands are copied: they must not be hyphenated
        ".ad l",
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(about)}",
    ]


def escaped(text: str, *, code: bool = False) -> str:
    """`text` for roff. Hyphens of `code` are those that a shell understands."""
    text = text.replace("\\", "\\e")
    if code:
        text = text.replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
        text = text.replace("^", "\\(ha").replace("~", "\\(ti")
    return "\\&" + text if text.startswith((".", "'")) else text


def code_lines(text: str) -> list[str]:
    """Lines that stay as they are."""
    return [".nf", *(escaped(line, code=True) for line in text.splitlines()), ".fi"]


def _blocks(nodes: Iterable[SyntaxTreeNode]) -> Iterator[str]:
    for node in nodes:
        match node.type:
            case "heading" if node.tag == "h1":
                yield ".SH DESCRIPTION"  # the page's name stands above it
            case "heading":
                yield f'{".SH" if node.tag == "h2" else ".SS"} "{escaped(plain(node))}"'
            case "paragraph":
                yield ".PP"
                yield _inline(node)
            case "fence" | "code_block":
                yield ".PP"
                yield from code_lines(node.content)
            case "bullet_list" | "ordered_list":
                yield from _list(node)
            case "table":
                yield from _table(node)
            case "blockquote":
                yield from (".RS 2", *_blocks(blocks(node)), ".RE")
            case _:
                raise NotImplementedError(f"{node.type} in a guide")


def _list(node: SyntaxTreeNode) -> Iterator[str]:
    for number, item in enumerate(node.children, 1):
        first, *others = blocks(item)
        yield r".IP \(bu 2" if node.type == "bullet_list" else f".IP {number}. 3"
        if first.type == "paragraph":
            yield _inline(first)
        else:
            others = [first, *others]
        if others:
            yield from (".RS 2", *_blocks(others), ".RE")


def _table(node: SyntaxTreeNode) -> Iterator[str]:
    cells = rows(node)
    words = [[plain(cell) for cell in row] for row in cells]
    widths = column_widths(words, _WIDTH - (len(words[0]) - 1))  # tbl's gap is one column wider
    titles, *others = ([_inline(cell) for cell in row] for row in cells)
    if widths is None:
        if is_prose(row[-1] for row in words):
            titles[-1] = ""
        yield from _records(titles, others)
        return
    formats = " ".join(f"lw({width}n)" for width in widths)
    yield from (".PP", ".TS", "tab(\t);", formats + ".")
    if any(words[0]):
        yield from (_row([f"\\fB{title}\\fR" for title in titles]), "_")
    has_gaps = needs_gaps(words, widths)
    for number, row in enumerate(others):
        if number and has_gaps:
            yield ".sp"
        yield _row(row)
    yield ".TE"


def _row(cells: Iterable[str]) -> str:
    return "\t".join(f"T{{\n{cell}\nT}}" for cell in cells)


def _records(titles: list[str], table: list[list[str]]) -> Iterator[str]:
    """A table that is too wide for columns: the first cell, and the others below it."""
    for first, *others in table:
        yield from (".TP", f"\\fB{first}\\fR")
        named = [
            f"{title}: {cell}" if title else cell
            for title, cell in zip(titles[1:], others, strict=True)
            if cell
        ]
        yield "\n.br\n".join(named)


def _inline(node: SyntaxTreeNode) -> str:
    text = "".join(_pieces(node, "R")).strip()
    return "\\&" + text if text.startswith((".", "'")) else text


def _pieces(node: SyntaxTreeNode, font: str) -> Iterator[str]:
    match node.type:
        case "text":
            yield node.content.replace("\\", "\\e")
        case "softbreak" | "hardbreak":
            yield " "
        case "code_inline":
            yield f"\\fB{escaped(node.content, code=True)}\\f{font}"
        case "link":
            yield from _inside(node, font)
            yield _target(node)
        case "strong":
            yield from ("\\fB", *_inside(node, "B"), f"\\f{font}")
        case "em":
            yield from ("\\fI", *_inside(node, "I"), f"\\f{font}")
        case "html_inline":
            return
        case _:
            yield from _inside(node, font)


def _inside(node: SyntaxTreeNode, font: str) -> Iterator[str]:
    for child in node.children:
        yield from _pieces(child, font)


def _target(link: SyntaxTreeNode) -> str:
    href = str(link.attrs["href"])
    if (topic := guide_of(href)) is not None:
        return f" (\\fBwhatsappd\\-{topic}\\fR(7))"
    if href.startswith("#") or href == plain(link):
        return ""
    return f" <{escaped(href)}>"
