"""`whatsappctl health`."""

from __future__ import annotations

from typing import Any

import click

from whatsappctl.command_options import client, common_options, options
from whatsappctl.output import finding_lines, print_json
from whatsappd.errors import EXIT_FAILED


@click.command("health")
@common_options
def command() -> None:
    """Tell whether all is well: the daemon, its host, and every wanted session.

    The exit code is 0 if it is, and 1 if something needs doing; what that is stands beside it.

    \b
    whatsappctl health || mail -s "whatsappd needs you" ops@example.org
    whatsappctl health --json | jq '.sessions | to_entries[] | select(.value.ok | not)'
    """
    with client() as daemon:
        report = daemon.call("daemon.health")
    if options().json:
        print_json(report)
    else:
        click.echo("\n".join(_lines(report)))
    if not report["healthy"]:
        click.get_current_context().exit(EXIT_FAILED)


def _lines(report: dict[str, Any]) -> list[str]:
    found = [
        (check["name"], "ok" if check["ok"] else "FAIL", check["detail"], check["remedy"])
        for check in report["checks"]
    ]
    found += [
        (company, "FAIL", session["detail"], session["remedy"])
        for company, session in report["sessions"].items()
        if not session["ok"]
    ]
    return finding_lines(found)
