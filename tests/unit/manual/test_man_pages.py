"""The man pages: one for each command and guide, in the wheel, readable at 80 columns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from documents import ROOT

from whatsappctl.cli import SECTIONS
from whatsappd.manual.man_pages import man_pages, write_man_pages
from whatsappd.manual.topics import TOPICS

VERBS = [verb for verbs in SECTIONS.values() for verb in verbs]
PAGES = [
    "man1/whatsappctl.1",
    "man1/whatsappd.1",
    *(f"man7/whatsappd-{topic}.7" for topic in TOPICS),
]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return man_pages()


def test_each_command_and_each_guide_has_a_page(pages: dict[str, str]) -> None:
    assert sorted(pages) == sorted(PAGES)


def test_the_commands_page_has_all_verbs_and_their_options(pages: dict[str, str]) -> None:
    page = pages["man1/whatsappctl.1"].replace("\\-", "-")
    for verb in VERBS:
        assert f'.SS "{verb} ' in page
    assert "\\fB--new-account\\fR" in page
    assert "outbox resolve [OPTIONS] ID..." in page
    assert page.count("\\fB--socket PATH\\fR") == 1  # all have it: it stands once
    assert ".BR whatsappd-sending (7)" in page


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man")
@pytest.mark.parametrize("path", PAGES)
def test_man_shows_it_without_a_complaint(path: str, pages: dict[str, str], tmp_path: Path) -> None:
    page = tmp_path / Path(path).name
    page.write_text(pages[path])
    shown = subprocess.run(
        ["man", "--warnings", "-l", str(page)],
        env={**os.environ, "MANWIDTH": "80", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # Its pages have no end where it matters: on a terminal.
    complaints = [line for line in shown.stderr.splitlines() if "not fit on one page" not in line]
    assert complaints == []
    if path.startswith("man7"):
        assert max(map(len, shown.stdout.splitlines())) <= 80


def test_the_wheel_has_the_guides_and_the_man_pages(tmp_path: Path) -> None:
    builder = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", builder, str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for topic in TOPICS:
        assert f"whatsappd/manual/{topic}.md" in names
    shared = {name.partition(".data/data/share/man/")[2] for name in names}
    assert set(PAGES) <= shared


def test_pages_are_written_below_a_directory(tmp_path: Path) -> None:
    write_man_pages(tmp_path)
    assert (tmp_path / "man7" / "whatsappd-backup.7").read_text().startswith("'\\\" t\n.TH ")
