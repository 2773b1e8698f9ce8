"""A guide as HTML: what stands inside a page."""

from __future__ import annotations

from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from whatsappd.manual.parsed import column_widths, guide_of, is_prose, parser, plain, rows, slug

#: The columns of text that a page has on a desk.
_WIDTH = 90
#: Shorter pieces of code are not broken.
_SHORT_CODE = 30


def as_html(text: str) -> str:
    """The guide `text` as HTML. Links between guides are relative, without `.md`.

    Classes say what the style sheet has to know: `word` for code that is not broken; `records` for
    tables that are too wide for columns, and `columns3`, … for the others. Each cell of a table has
    its column's title in `data-title`, unless it is a sentence in the last column.
    """
    markdown = parser()
    tokens = [token for token in markdown.parse(text) if token.type != "html_block"]
    for node in SyntaxTreeNode(tokens).walk():
        match node.type:
            case "heading":
                _opening(node).attrSet("id", slug(plain(node)))
            case "link":
                href = str(node.attrs["href"])
                if guide_of(href) is not None:
                    _opening(node).attrSet("href", href.replace(".md", "", 1))
            case "code_inline":
                if len(node.content) <= _SHORT_CODE and " " not in node.content:
                    assert node.token is not None
                    node.token.attrSet("class", "word")
            case "table":
                _describe_table(node)
    shown: str = markdown.renderer.render(tokens, markdown.options, {})
    # A table that is wider than a phone is moved by itself, not the page.
    shown = shown.replace("<table", '<div class="wide"><table')
    return shown.replace("</table>", "</table></div>")


def _describe_table(node: SyntaxTreeNode) -> None:
    cells = rows(node)
    words = [[plain(cell) for cell in row] for row in cells]
    is_wide = column_widths(words, _WIDTH) is None
    _opening(node).attrSet("class", "records" if is_wide else f"columns{len(words[0])}")
    titles = words[0][:-1] if is_prose(row[-1] for row in words) else words[0]
    for row in cells[1:]:
        for title, cell in zip(titles, row, strict=False):
            if title:
                _opening(cell).attrSet("data-title", title)


def _opening(node: SyntaxTreeNode) -> Token:
    assert node.nester_tokens is not None
    return node.nester_tokens.opening
