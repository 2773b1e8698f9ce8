"""The guides as web pages, below `/manual/`: without scripts, in the look of the page at `/`."""

from __future__ import annotations

from functools import cache
from html import escape

from whatsappd.manual.as_html import as_html
from whatsappd.manual.topics import TOPICS, read

#: Unlike the page at `/` they run nothing, and ask for nothing but their style and their icon.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@cache  # there are some twenty, and they change with the version only
def guide_page(topic: str) -> str | None:
    """The whole page of a guide, or with an empty `topic` the list of them. None: no such guide.

    All links are relative, so that a proxy may have everything below a path of its own.
    """
    if not topic:
        return _page("Guides", _contents())
    if topic not in TOPICS:
        return None
    return _page(topic.capitalize(), as_html(read(topic)), topic)


def _contents() -> str:
    lines = (
        f'<dt><a href="{topic}">{topic}</a></dt><dd>{escape(about)}</dd>'
        for topic, about in TOPICS.items()
    )
    return f"<h1>Guides</h1><dl>{''.join(lines)}</dl>"


def _page(title: str, article: str, present: str | None = None) -> str:
    items = "".join(
        f'<li><a href="{topic}"{" aria-current=page" if topic == present else ""}>{topic}</a></li>'
        for topic in TOPICS
    )
    guides = f'<nav id="guides" class="card" aria-label="Guides"><ul>{items}</ul></nav>'
    return f"""\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>{title} · whatsappd</title>
  <link rel="icon" href="../page/icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="../page/page.css">
  <link rel="stylesheet" href="../page/manual.css">
</head>
<body class="manual">
  <header>
    <p><img src="../page/icon.svg" alt="" width="28" height="28"> whatsappd</p>
    <nav aria-label="Elsewhere"><a href="./">Guides</a> <a href="../docs">API</a>
      <a href="../">Page</a></nav>
  </header>
  <main>
    <article class="card">
{article}
    </article>
    {guides if present else ""}
  </main>
</body>
</html>
"""
