"""Verbs that do one thing to one session and answer with its status: stop, restart, logout."""

from __future__ import annotations

import click

from whatsappctl.command_options import client, common_options, company_argument, options
from whatsappctl.output import print_json, say, session_line


def session_verb(verb: str, doc: str) -> click.Command:
    """The command for `session.VERB`."""

    @click.command(verb, help=doc)
    @common_options
    @company_argument()
    def command(company: str) -> None:
        with client() as daemon:
            status = daemon.call(f"session.{verb}", company=company)
        if options().json:
            print_json(status)
        else:
            say(session_line(status))

    return command
