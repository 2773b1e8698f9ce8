"""A man page for a command with subcommands, written from the help that click has of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from inspect import cleandoc

import click

from whatsappd.manual.as_roff import code_lines, escaped, header
from whatsappd.manual.topics import TOPICS


def command_page(
    group: click.Group,
    name: str,
    *,
    about: str,
    sections: Mapping[str, Iterable[str]],
    version: str,
    notes: str = "",
) -> str:
    """A page of section 1.

    Args:
        name: the program's.
        about: one line about the command, for `apropos`.
        sections: the subcommands' names, under the headings that they have in the page.
        notes: help text that belongs to all subcommands: exit codes, examples.
    """
    context = click.Context(group, info_name=name, **group.context_settings)
    lines = [
        *header(name, 1, about=about, version=version),
        ".SH SYNOPSIS",
        f"\\fB{name}\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        *_help(group.help),
        *_options(context),
    ]
    for title, verbs in sections.items():
        lines.append(f'.SH "{escaped(title.upper())}"')
        for verb in verbs:
            command = group.get_command(context, verb)
            assert command is not None
            lines += _command(command, context, verb)
    if notes:
        lines += [".SH NOTES", *_help(notes)]
    lines += [".SH SEE ALSO", *_see_also(name)]
    return "\n".join(lines) + "\n"


def _command(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    context = click.Context(command, parent=parent, info_name=name)
    usage = " ".join(piece for piece in command.collect_usage_pieces(context))
    yield f'.SS "{escaped(f"{_below_root(context)} {usage}", code=True)}"'
    yield from _help(command.help)
    yield from _options(context)
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            inner = command.get_command(context, verb)
            assert inner is not None
            yield from _command(inner, context, verb)


def _below_root(context: click.Context) -> str:
    """A subcommand's name as it is typed, without the program's."""
    return context.command_path.partition(" ")[2]


def _help(text: str | None) -> Iterator[str]:
    """A help text of click's: paragraphs, and behind `\\b` lines that stay as they are."""
    for paragraph in cleandoc(text or "").split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        yield ".PP"
        if lines[0].strip() == "\b":
            yield from code_lines("\n".join(lines[1:]))
        else:
            yield escaped(" ".join(line.strip() for line in lines))


def _options(context: click.Context) -> Iterator[str]:
    """The options. Those that all commands share stand once, at the top."""
    for option in context.command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is None or (context.parent is not None and option.name in _SHARED):
            continue
        names, about = record
        yield from (".TP", f"\\fB{escaped(names, code=True)}\\fR", escaped(about))


_SHARED = ("socket", "json", "help")


def _see_also(name: str) -> Iterator[str]:
    other = "whatsappd" if name == "whatsappctl" else "whatsappctl"
    yield f".BR {other} (1),"
    pages = [f".BR whatsappd\\-{topic} (7)" for topic in TOPICS]
    yield from (page + "," for page in pages[:-1])
    yield pages[-1]
