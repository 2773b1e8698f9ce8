"""`whatsappctl help`: the list, a guide, a command's help, and a name that is none of them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from whatsappctl.cli import cli
from whatsappd.manual.topics import TOPICS


def test_without_a_topic_it_lists_all_with_a_line_about_each():
    result = CliRunner().invoke(cli, ["help"])
    assert result.exit_code == 0
    for topic, about in TOPICS.items():
        assert f"  {topic} " in result.stdout
        assert about in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 88
    assert json.loads(CliRunner().invoke(cli, ["help", "--json"]).stdout) == TOPICS


def test_through_a_pipe_a_guide_is_plain_text():
    result = CliRunner().invoke(cli, ["help", "sending"])
    assert result.exit_code == 0
    assert result.stdout.startswith("Sending a message\n=================\n")
    assert "\x1b" not in result.stdout
    as_json = json.loads(CliRunner().invoke(cli, ["help", "sending", "--json"]).stdout)
    assert as_json["topic"] == "sending"
    assert as_json["markdown"].startswith("# Sending a message\n")


def test_a_commands_name_shows_its_help_where_there_is_no_guide():
    shown = CliRunner().invoke(cli, ["help", "send"], prog_name="whatsappctl")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("Usage: whatsappctl send [OPTIONS]")


def test_an_unknown_topic_is_an_error_that_names_the_topics():
    result = CliRunner().invoke(cli, ["help", "sanding"])
    assert result.exit_code == 2
    assert "There is no guide 'sanding'" in result.stderr
    assert all(topic in result.stderr for topic in TOPICS)


def test_on_a_terminal_a_pager_shows_it_in_type(tmp_path: Path):
    """A real terminal, and a pager that leaves what it got."""
    shown = tmp_path / "shown"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PAGER": f"tee {shown}", "TERM": "xterm", "COLUMNS": "60"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "whatsappctl", "help", "backup"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        read = b""
        try:
            while piece := os.read(ours, 65536):
                read += piece
        except OSError:  # how a terminal says that nobody writes any more
            pass
        assert process.wait(30) == 0, read
    os.close(ours)
    text = shown.read_text()
    assert "\x1b[1mBackup and restore\x1b[0m" in text
    assert "=====" not in text
