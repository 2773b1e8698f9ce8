"""`whatsappctl configure`."""

from __future__ import annotations

import click

from whatsappctl.command_options import client, common_options, options
from whatsappctl.output import print_json, say

#: As in `whatsappd.logs`, which needs structlog.
LOG_LEVELS = ("debug", "info", "warning", "error")


@click.command("configure")
@common_options
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    help="The least important log lines that the daemon writes.",
)
def command(log_level: str | None) -> None:
    """Change the daemon while it runs; without an option, show what can be changed.

    It holds until the daemon reloads its configuration or restarts. For good, write it into the
    configuration file.

    \b
    whatsappctl configure --log-level debug
    """
    with client() as daemon:
        answer = daemon.call("daemon.configure", log_level=log_level)
    if options().json:
        print_json(answer)
        return
    for name, value in answer.items():
        say(f"{name.replace('_', '-')}: {value}")
