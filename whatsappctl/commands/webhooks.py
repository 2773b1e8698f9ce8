"""`whatsappctl webhooks …`."""

from __future__ import annotations

from typing import Any

import click

from whatsappctl.command_options import client, common_options, options
from whatsappctl.output import age, clock, print_json, say, table
from whatsappd.errors import EXIT_FAILED


@click.group("webhooks")
@common_options
def command() -> None:
    """Webhooks: URLs to which `whatsappd gateway` delivers events.

    \b
    whatsappctl webhooks create https://hooks.shop.example/whatsapp --type message.received
    whatsappctl webhooks test 5pk2wczu
    whatsappctl webhooks list
    """


def _filters(made: Any) -> Any:
    made = click.option("--type", "types", multiple=True, metavar="TYPE",
                        help="Only events of this type; may be repeated. Without it, all but "
                        "session.qr, which has to be named.")(made)  # fmt: skip
    return click.option("--company", "companies", multiple=True, metavar="COMPANY",
                        help="Only of this company; may be repeated.")(made)  # fmt: skip


def _letters(made: Any) -> Any:
    return click.argument("letters", nargs=-1, type=int, metavar="[LETTER]...")(made)


@command.command("create")
@common_options
@click.argument("url")
@_filters
@click.option(
    "--description",
    default="",
    metavar="TEXT",
    help="A note for people, such as whose receiver it is.",
)
@click.option("--allow-private", is_flag=True,
              help="Let it reach addresses that are not on the Internet: this host, your "
                   "network; and plain http://.")  # fmt: skip
@click.option("--after", type=click.IntRange(min=0), metavar="SEQ",
              help="Begin behind this event; 0: with the oldest. Default: with what "
                   "comes.")  # fmt: skip
def create(
    url: str,
    companies: tuple[str, ...],
    types: tuple[str, ...],
    description: str,
    allow_private: bool,
    after: int | None,
) -> None:
    """Deliver events to URL, and print the secret.

    The secret signs what is delivered, and is shown only once. Without --company and --type, all
    events are delivered.
    """
    with client() as daemon:
        made = daemon.call(
            "webhook.create",
            url=url,
            companies=list(companies) or None,
            types=list(types) or None,
            description=description,
            allow_private=allow_private,
            after=after,
        )
        delivering = options().json or daemon.call("webhook.list")["delivering"]
    if options().json:
        print_json(made)
        return
    say(made["secret"])
    say(f"id {made['id']}: {_what(made)}. The secret is not shown again.", err=True)
    if not delivering:
        say("nobody delivers just now: start `whatsappd gateway`", err=True)


@command.command("list")
@common_options
def list_webhooks() -> None:
    """Show the webhooks: state, how far behind, dead letters."""
    with client() as daemon:
        found = daemon.call("webhook.list")
    if options().json:
        print_json(found)
        return
    if not found["webhooks"]:
        say("no webhooks yet: `whatsappctl webhooks create URL` makes one", err=True)
        return
    rows = [
        (
            each["id"],
            each["state"],
            each["delivered"],
            each["behind"],
            each["dead_letters"],
            age(each["last_success_ms"]),
            each["url"],
        )
        for each in found["webhooks"]
    ]
    titles = ("ID", "STATE", "DELIVERED", "BEHIND", "DEAD", "LAST", "URL")
    click.echo(table(titles, rows))
    if not found["delivering"]:
        say("nobody delivers just now: start `whatsappd gateway`", err=True)


@command.command("show")
@common_options
@click.argument("webhook_id", metavar="ID")
def show(webhook_id: str) -> None:
    """Show one webhook: which events it gets, and what went wrong last."""
    with client() as daemon:
        found = daemon.call("webhook.get", id=webhook_id)
    if options().json:
        print_json(found)
        return
    lines = [
        ("url", found["url"]),
        ("description", found["description"] or "-"),
        ("events", _what(found)),
        ("private addresses", "allowed" if found["allow_private"] else "refused"),
        ("state", _state(found)),
        ("delivered", f"{found['delivered']}, last {age(found['last_success_ms'])} ago"),
        ("failed attempts", found["failures"]),
        ("last error", found["last_error"] or "-"),
        ("behind", f"{found['behind']} events of the log"),
        ("dead letters", found["dead_letters"]),
        ("gone", f"{found['gone']} events, which retention deleted first"),
    ]
    for name, value in lines:
        say(f"{name:<18} {value}")


@command.command("update")
@common_options
@click.argument("webhook_id", metavar="ID")
@click.option("--url", help="Deliver there instead.")
@_filters
@click.option("--all-companies", is_flag=True, help="Of all companies, also new ones.")
@click.option("--all-types", is_flag=True, help="Events of all types but session.qr.")
@click.option("--description", metavar="TEXT")
@click.option("--allow-private/--refuse-private", default=None,
              help="Whether it may reach addresses that are not on the Internet.")  # fmt: skip
@click.option("--enable/--disable", "enabled", default=None,
              help="Disabled, it keeps its position; enabled again, it goes on there.")  # fmt: skip
@click.option("--rotate-secret", is_flag=True, help="Sign with a new secret, and print it.")
def update(
    webhook_id: str,
    url: str | None,
    companies: tuple[str, ...],
    types: tuple[str, ...],
    all_companies: bool,
    all_types: bool,
    description: str | None,
    allow_private: bool | None,
    enabled: bool | None,
    rotate_secret: bool,
) -> None:
    """Change a webhook; what is not given stays as it is. A paused one is tried again at once."""
    if (companies and all_companies) or (types and all_types):
        raise click.UsageError("name some, or say all: not both")
    changes: dict[str, Any] = {
        name: value
        for name, value in {
            "url": url,
            "companies": list(companies) or None,
            "types": list(types) or None,
            "description": description,
            "allow_private": allow_private,
            "enabled": enabled,
        }.items()
        if value is not None
    }
    if all_companies:
        changes["companies"] = None
    if all_types:
        changes["types"] = None
    with client() as daemon:
        updated = daemon.request(
            "webhook.update", {"id": webhook_id, "rotate_secret": rotate_secret, **changes}
        )
    if options().json:
        print_json(updated)
        return
    if rotate_secret:
        say(updated["secret"])
    say(f"{webhook_id}: {_what(updated)}; {_state(updated)}", err=True)


@command.command("remove")
@common_options
@click.argument("webhook_id", metavar="ID")
def remove(webhook_id: str) -> None:
    """Delete a webhook, its position in the log, and its dead letters."""
    with client() as daemon:
        removed = daemon.call("webhook.remove", id=webhook_id)
    if options().json:
        print_json(removed)
    else:
        say(f"removed {webhook_id}", err=True)


@command.command("test")
@common_options
@click.argument("webhook_id", metavar="ID")
@click.pass_context
def test(ctx: click.Context, webhook_id: str) -> None:
    """Deliver a test event, and print the answer.

    Exit code 1: it did not take the event.
    """
    with client() as daemon:
        tested = daemon.call("webhook.test", id=webhook_id)
    if options().json:
        print_json(tested)
    elif tested["ok"]:
        say(f"{webhook_id}: status {tested['status']} after {tested['took_ms']} ms")
    else:
        say(f"{webhook_id}: {tested['error']}", err=True)
    if not tested["ok"]:
        ctx.exit(EXIT_FAILED)


@command.command("dead")
@common_options
@click.argument("webhook_id", metavar="ID")
@click.option(
    "--limit",
    type=click.IntRange(1, 500),
    default=100,
    show_default=True,
    metavar="N",
    help="Show at most this many.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="LETTER",
    help="Only dead letters behind this one.",
)
def dead(webhook_id: str, limit: int, after: int) -> None:
    """Show its dead letters: events that the receiver refused."""
    with client() as daemon:
        found = daemon.call("webhook.dead_letters", id=webhook_id, limit=limit, after=after)
    if options().json:
        print_json(found)
        return
    if not found["dead_letters"]:
        say("no dead letters", err=True)
        return
    rows = [
        (
            each["id"],
            each["seq"],
            clock(each["time_ms"]),
            each["company"],
            each["type"],
            each["attempts"],
            f"{each['reason']}{' (is sent again)' if each['resend'] else ''}",
        )
        for each in found["dead_letters"]
    ]
    titles = ("LETTER", "SEQ", "TIME", "COMPANY", "TYPE", "ATTEMPTS", "REASON")
    click.echo(table(titles, rows))
    if found["next"] is not None:
        say(f"there may be more: --after {found['next']}", err=True)


@command.command("resend")
@common_options
@click.argument("webhook_id", metavar="ID")
@_letters
def resend(webhook_id: str, letters: tuple[int, ...]) -> None:
    """Try dead letters once more; all of them without LETTER. `dead` shows what remains."""
    _on_letters("webhook.resend", webhook_id, letters, "to be sent again")


@command.command("discard")
@common_options
@click.argument("webhook_id", metavar="ID")
@_letters
def discard(webhook_id: str, letters: tuple[int, ...]) -> None:
    """Delete dead letters; all of them without LETTER."""
    _on_letters("webhook.discard", webhook_id, letters, "deleted")


def _on_letters(method: str, webhook_id: str, letters: tuple[int, ...], done: str) -> None:
    with client() as daemon:
        counted = daemon.call(method, id=webhook_id, letters=list(letters) or None)
    if options().json:
        print_json(counted)
    else:
        say(f"{counted['count']} {done}", err=True)


def _what(webhook: dict[str, Any]) -> str:
    companies = ", ".join(webhook["companies"]) if webhook["companies"] else "all companies"
    types = ", ".join(webhook["types"]) if webhook["types"] else "all events"
    return f"{types} of {companies}"


def _state(webhook: dict[str, Any]) -> str:
    since = webhook["paused_since_ms"] or webhook["failing_since_ms"]
    state = str(webhook["state"])
    return f"{state} for {age(since)}" if since and state != "disabled" else state
