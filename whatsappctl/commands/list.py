"""`whatsappctl list`."""

from __future__ import annotations

import click

from whatsappctl.command_options import client, common_options, options
from whatsappctl.output import age, number, print_json, say, table


@click.command("list")
@common_options
@click.option("--state", metavar="STATE", help="Only sessions in this state, such as connected.")
def command(state: str | None) -> None:
    """List the companies and the states of their sessions.

    \b
    whatsappctl list --state connected
    whatsappctl list --json
    """
    with client() as daemon:
        sessions = daemon.sessions()
    found = [session for session in sessions if state in (None, session["state"])]
    if options().json:
        print_json(found)
    elif found:
        rows = [
            (status["company"], status["state"], age(status["since_ms"]), number(status["jid"]))
            for status in found
        ]
        click.echo(table(("COMPANY", "STATE", "FOR", "NUMBER"), rows))
    elif sessions:
        say(f"no session is {state}", err=True)
    else:
        say("no companies yet: `whatsappctl start COMPANY` links the first", err=True)
