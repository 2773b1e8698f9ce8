"""`whatsappctl backup`."""

from __future__ import annotations

import os

import click

from whatsappctl.common import client, common_options, options
from whatsappctl.output import print_json, say


@click.command("backup")
@common_options
@click.argument("file", type=click.Path(dir_okay=False))
def command(file: str) -> None:
    """Let the daemon write a consistent copy of its database to FILE, while it runs.

    The daemon writes it, so its user must be allowed to. The copy holds all messages and events:
    treat it like the state directory itself.

    \b
    whatsappctl backup /var/backups/whatsappd.db
    """
    # The daemon has another working directory.
    path = os.path.abspath(file)  # noqa: PTH100 - resolve() would follow links of this side
    with client(deadline=None) as daemon:
        answer = daemon.call("daemon.backup", path=path)
    if options().json:
        print_json(answer)
    else:
        say(answer.get("path", path))
