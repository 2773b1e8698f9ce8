"""A guide as HTML: what stands inside a page."""

from __future__ import annotations

from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from whatsappd.manual.parsed import guide_of, parser, plain, slug


def as_html(text: str) -> str:
    """The guide `text` as HTML. Links between guides are relative, without `.md`."""
    markdown = parser()
    tokens = [token for token in markdown.parse(text) if token.type != "html_block"]
    for node in SyntaxTreeNode(tokens).walk():
        if node.type == "heading":
            _opening(node).attrSet("id", slug(plain(node)))
        elif node.type == "link":
            href = str(node.attrs["href"])
            if guide_of(href) is not None:
                _opening(node).attrSet("href", href.replace(".md", "", 1))
    shown: str = markdown.renderer.render(tokens, markdown.options, {})
    # A table that is wider than a phone is moved by itself, not the page.
    shown = shown.replace("<table>", '<div class="wide"><table>')
    return shown.replace("</table>", "</table></div>")


def _opening(node: SyntaxTreeNode) -> Token:
    assert node.nester_tokens is not None
    return node.nester_tokens.opening
