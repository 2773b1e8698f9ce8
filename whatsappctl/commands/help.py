"""`whatsappctl help`."""

from __future__ import annotations

import os
import sys
from shutil import get_terminal_size

import click

from whatsappctl.command_options import common_options, options
from whatsappctl.output import print_json
from whatsappd.manual.topics import TOPICS, read

#: Lines longer than this are hard to read; a wider terminal stays empty at its right.
_WIDEST = 88


@click.command("help")
@common_options
@click.argument("topic", required=False)
@click.pass_context
def command(ctx: click.Context, topic: str | None) -> None:
    """Show the guide about TOPIC; without TOPIC, list the guides.

    On a terminal the guide is shown by $PAGER, or less. TOPIC may also be a command's name: then
    this is the same as `whatsappctl COMMAND --help`, where there is no guide of that name.

    \b
    whatsappctl help sending
    whatsappctl help configuration > configuration.txt
    """
    if topic is None:
        if options().json:
            print_json(TOPICS)
        else:
            click.echo(_contents())
    elif topic in TOPICS:
        if options().json:
            print_json({"topic": topic, "about": TOPICS[topic], "markdown": read(topic)})
        else:
            _show(topic)
    else:
        click.echo(_help_of_command(ctx, topic))


def _contents() -> str:
    width = max(map(len, TOPICS))
    lines = [f"  {topic:<{width}}  {about}" for topic, about in TOPICS.items()]
    end = "`whatsappctl help TOPIC` shows a guide, `whatsappctl COMMAND --help` explains a command."
    return "\n".join(["Guides:", *lines, "", end])


def _show(topic: str) -> None:
    from whatsappd.manual.as_terminal import as_terminal

    if not sys.stdout.isatty():
        click.echo(as_terminal(read(topic)), nl=False)
        return
    width = min(get_terminal_size().columns, _WIDEST)
    styled = "NO_COLOR" not in os.environ
    os.environ.setdefault("LESS", "FRX")  # ends at once with what fits, and leaves it there
    click.echo_via_pager(as_terminal(read(topic), width=width, styled=styled), color=styled)


def _help_of_command(ctx: click.Context, name: str) -> str:
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    found = group.get_command(ctx, name)
    if found is None:
        raise click.UsageError(f"There is no guide {name!r}. The guides: {', '.join(TOPICS)}.", ctx)
    return found.get_help(click.Context(found, parent=ctx.find_root(), info_name=name))
