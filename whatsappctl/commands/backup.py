"""`whatsappctl backup`."""

from __future__ import annotations

import sys
from typing import Any

import click

from whatsappctl.command_options import client, common_options, options
from whatsappctl.output import print_json, say
from whatsappd.errors import EXIT_FAILED


@click.command("backup")
@common_options
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--with-accounts",
    is_flag=True,
    help="Also the companies' WhatsApp accounts, with their keys: an archive (tar).",
)
@click.option("--replace", is_flag=True, help="Replace FILE if it exists.")
def command(file: str, with_accounts: bool, replace: bool) -> None:
    """Write a consistent copy of the database to FILE, while the daemon runs.

    FILE is there whole or not at all, belongs to you, and has mode 0600. `-` is standard output.
    The copy holds all messages and events: treat it like the state directory itself. With the
    accounts in it, whoever has it can read and write as your companies.

    An account that is damaged or cannot be read is left out and named, and the exit code is 1.

    `whatsappd restore FILE` brings it back.

    \b
    whatsappctl backup /var/backups/whatsappd.db
    whatsappctl backup --with-accounts --replace /var/backups/whatsappd.tar
    whatsappctl backup --with-accounts - | age -r KEY > whatsappd.tar.age
    """
    if file == "-":
        _to_stdout(with_accounts)
        return
    from whatsappd.files import PRIVATE, new_file

    with new_file(file, mode=PRIVATE, replace=replace) as target, client() as daemon:
        answer = daemon.backup(target.write, accounts=with_accounts)
    if options().json:
        print_json({"path": file, **_told(answer)})
    else:
        say(file)
    _tell_left_out(answer)


def _tell_left_out(answer: dict[str, Any]) -> None:
    """A backup without an account is one, and whoever relies on it has to know."""
    left_out = answer.get("left_out") or {}
    for company, reason in left_out.items():
        say(f"not in it: the account of {company}: {reason}", err=True)
    if left_out:
        click.get_current_context().exit(EXIT_FAILED)


def _to_stdout(with_accounts: bool) -> None:
    if sys.stdout.isatty():
        raise click.UsageError("a backup is no text for a terminal: name a FILE, or use a pipe")
    with client() as daemon:
        answer = daemon.backup(_write, accounts=with_accounts)
    sys.stdout.buffer.flush()
    _tell_left_out(answer)


def _write(data: bytes) -> None:
    from whatsappd import stdio

    sys.stdout.buffer.write(data)
    if stdio.failure_of_stdout() is not None:
        # Nobody reads on: the rest need not come. What failed is told at the end.
        click.get_current_context().exit(EXIT_FAILED)


def _told(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer.get(name) for name in ("bytes", "sha256", "companies", "left_out")}
