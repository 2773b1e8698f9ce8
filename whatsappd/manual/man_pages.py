"""All man pages: one for each command, one for each guide."""

from __future__ import annotations

from pathlib import Path

from whatsappctl.cli import EPILOG, SECTIONS
from whatsappctl.cli import cli as whatsappctl
from whatsappd import __version__
from whatsappd.cli import cli as whatsappd
from whatsappd.manual.as_roff import as_roff
from whatsappd.manual.command_pages import command_page
from whatsappd.manual.topics import TOPICS, read


def man_pages() -> dict[str, str]:
    """Every page, by its path below `share/man`."""
    pages = {
        "man1/whatsappctl.1": command_page(
            whatsappctl,
            "whatsappctl",
            about="talk to whatsappd, the owner of this host's WhatsApp sessions",
            sections=SECTIONS,
            notes=EPILOG,
            version=__version__,
        ),
        "man1/whatsappd.1": command_page(
            whatsappd,
            "whatsappd",
            about="own many WhatsApp sessions, one per company",
            sections={"Commands": dict.fromkeys(whatsappd.commands)},
            version=__version__,
        ),
    }
    for topic, about in TOPICS.items():
        name = f"whatsappd-{topic}"
        pages[f"man7/{name}.7"] = as_roff(
            read(topic), name=name, about=_phrase(about), version=__version__
        )
    return pages


def write_man_pages(directory: Path) -> None:
    """Write all pages below `directory`, which becomes a `share/man`."""
    for path, text in man_pages().items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def _phrase(sentence: str) -> str:
    """A sentence as `apropos` shows it: with a small letter, without its full stop."""
    first = sentence[0] if sentence.startswith("REST") else sentence[0].lower()
    return first + sentence[1:].removesuffix(".")
