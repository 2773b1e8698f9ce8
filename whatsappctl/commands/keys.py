"""`whatsappctl keys …`."""

from __future__ import annotations

from typing import Any

import click

from whatsappctl.command_options import client, common_options, options
from whatsappctl.output import age, print_json, say, table

#: As in `whatsappd.store.sqlite.keys.Scope`, which is the daemon's.
SCOPES = ("read", "send", "admin")


@click.group("keys")
@common_options
def command() -> None:
    """API keys: who may use the gateway (REST and WebSocket), and what for.

    \b
    whatsappctl keys create "web shop" --scope send --company acme
    whatsappctl keys list
    whatsappctl keys revoke 5pk2wczu
    """


@command.command("create")
@common_options
@click.argument("name")
@click.option("--scope", type=click.Choice(SCOPES), default="send", show_default=True,
              help="read: look and follow; send: and send messages; admin: and start, link, "
                   "configure and remove sessions.")  # fmt: skip
@click.option("--company", "companies", multiple=True, metavar="COMPANY",
              help="Only this company; may be repeated. Default: all, also new ones.")  # fmt: skip
def create(name: str, scope: str, companies: tuple[str, ...]) -> None:
    """Make a key for NAME (whoever will use it), and print it.

    It is shown this once. Programs send it as `Authorization: Bearer KEY`.
    """
    with client() as daemon:
        made = daemon.call("key.create", name=name, scope=scope, companies=list(companies) or None)
    if options().json:
        print_json(made)
        return
    say(made["key"])
    say(f"id {made['id']}: {_what(made)}. The key is not shown again.", err=True)


@command.command("list")
@common_options
def list_keys() -> None:
    """Show the keys: their ids, never the keys themselves."""
    with client() as daemon:
        keys = daemon.call("key.list")["keys"]
    if options().json:
        print_json({"keys": keys})
        return
    if not keys:
        say("no keys yet: `whatsappctl keys create NAME` makes one", err=True)
        return
    rows = [
        (
            key["id"],
            key["scope"],
            ", ".join(key["companies"]) if key["companies"] else "all",
            age(key["created_ms"]),
            age(key["last_used_ms"]),
            key["name"],
        )
        for key in keys
    ]
    click.echo(table(("ID", "SCOPE", "COMPANIES", "AGE", "LAST USED", "NAME"), rows))


@command.command("revoke")
@common_options
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """End the key with this ID; within seconds nobody gets in with it."""
    with client() as daemon:
        revoked = daemon.call("key.revoke", id=key_id)
    if options().json:
        print_json(revoked)
    else:
        say(f"revoked {revoked['id']} ({revoked['name']})", err=True)


def _what(key: dict[str, Any]) -> str:
    companies = ", ".join(key["companies"]) if key["companies"] else "all companies"
    return f"scope {key['scope']}, {companies}"
