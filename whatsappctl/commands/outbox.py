"""`whatsappctl outbox …`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from whatsappctl.command_options import client, common_options, company_argument, options
from whatsappctl.output import age, clock, in_time, number, print_json, say, shortened, table
from whatsappd.command_runner import check_output
from whatsappd.errors import WhatsappdError
from whatsappd.wire.escape import printable

if TYPE_CHECKING:
    from whatsappctl.client import Client

#: As in `whatsappd.model.message.OutboxState`, which takes longer to import than this verb runs.
STATES = (
    "queued", "sending", "sent", "delivered", "read", "played",
    "failed", "expired", "cancelled", "uncertain",
)  # fmt: skip
#: What `resolve` can decide.
DECISIONS = ("sent", "resend", "failed")
#: Rows asked for at a time; the most that the daemon gives.
PAGE = 200
#: Columns of a text in the table.
SHOWN = 40


@click.group("outbox")
@common_options
def command() -> None:
    """Look at messages that were accepted, and decide about them.

    \b
    whatsappctl outbox list acme --state uncertain
    whatsappctl outbox show 0c8d0f4a5b6c7d8e
    whatsappctl outbox cancel 0c8d0f4a5b6c7d8e
    whatsappctl outbox resolve 0c8d0f4a5b6c7d8e --as resend
    """


@command.command("list")
@common_options
@company_argument(required=False)
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES),
    multiple=True,
    metavar="STATE",
    help="Only messages in this state, such as queued or uncertain; may be repeated.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="Show at most this many.",
)
@click.option("--all", "everything", is_flag=True, help="Show all of them.")
@click.option("--before", metavar="ID", help="Only messages accepted before this one.")
def list_rows(
    company: str | None, states: tuple[str, ...], limit: int, everything: bool, before: str | None
) -> None:
    """List messages, newest first; all companies' without COMPANY.

    With --json each message is one line (NDJSON), with its whole text.

    \b
    whatsappctl outbox list --state uncertain --state failed
    whatsappctl outbox list acme --all --json >acme.ndjson
    """
    empty, more = True, None
    with client() as daemon:
        wanted = {"company": company, "states": list(states) or None}
        for rows, following in _pages(daemon, wanted, None if everything else limit, before):
            empty, more = empty and not rows, following
            if options().json:
                for row in rows:
                    print_json(row)
            elif rows:
                click.echo(_table(rows))
            check_output()
    if empty:
        say("no messages" + (f" that are {' or '.join(states)}" if states else ""), err=True)
    elif more is not None:
        say(f"there are more: --before {more}, or --all", err=True)


def _pages(
    daemon: Client, wanted: dict[str, Any], limit: int | None, before: str | None
) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """Rows, and what to ask for next; at most `limit` rows together."""
    while True:
        count = PAGE if limit is None else min(PAGE, limit)
        page = daemon.call("message.list", limit=count, before=before, **wanted)
        before = page["next"]
        yield page["rows"], before
        if limit is not None:
            limit -= len(page["rows"])
        if before is None or limit == 0:
            return


def _table(rows: list[dict[str, Any]]) -> str:
    titles = ("ID", "COMPANY", "TO", "STATE", "AGE", "TRIES", "TEXT", "REASON")
    return table(
        titles,
        (
            (
                row["id"],
                row["company"],
                number(row["chat"]),
                row["state"],
                age(row["created_ms"]),
                row["attempts"],
                _shortened(row["text"] or f"[{row['content']['kind']}]"),
                row["reason"] or "",
            )
            for row in rows
        ),
    )


def _shortened(text: str) -> str:
    first, newline, _ = text.partition("\n")
    return shortened(first + "…" if newline else first, SHOWN)


@command.command("show")
@common_options
@click.argument("message_id", metavar="ID")
def show(message_id: str) -> None:
    """Show all that is known about the message with this ID."""
    with client() as daemon:
        row = daemon.message(message_id)
    if options().json:
        print_json(row)
    else:
        click.echo(_facts(row))


def _facts(row: dict[str, Any]) -> str:
    facts = {
        "id": row["id"],
        "company": row["company"],
        "to": f"{number(row['chat'])} ({row['chat']})",
        "asked for": number(row.get("asked")),
        "state": row["state"],
        "goes first": "it answers somebody who wrote within a day" if row.get("is_reply") else None,
        "reason": row["reason"],
        "key": row["key"],
        "accepted": _at(row["created_ms"]),
        "changed": _at(row["updated_ms"]),
        "kind": None if row["content"]["kind"] == "text" else row["content"]["kind"],
        "tries": row["attempts"],
        "lost tries": row["lost_attempts"] or None,
        "next try": in_time(row["not_before_ms"]) if row["state"] == "queued" else None,
        "expires": _at(row["expires_ms"]),
        "if uncertain": row["on_uncertain"],
        "handed over": _at(row["handed_ms"]),
        "sent": _at(row["sent_ms"]),
        "whatsapp's id": row["message_id"],
        "former id": row.get("former_message_id"),
    }
    lines = [
        f"{name + ':':<15}{printable(value)}"
        for name, value in facts.items()
        if value is not None and value != "-"
    ]
    # Line by line, because escaping would make one of them; indented, or it could play a fact.
    return "\n".join([*lines, "", *(f"  {printable(line)}" for line in row["text"].split("\n"))])


def _at(at_ms: int | None) -> str | None:
    return clock(at_ms) if at_ms else None


@command.command("cancel")
@common_options
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def cancel(ids: tuple[str, ...]) -> None:
    """Cancel messages that are still queued.

    A message that is being sent cannot be called back.
    Ends with exit code 7 if one of them was not queued any more.

    \b
    whatsappctl outbox list acme --state queued --all --json | jq -r .id |
        xargs whatsappctl outbox cancel
    """
    with client() as daemon:
        _each(ids, lambda id: daemon.call("message.cancel", id=id))


@command.command("resolve")
@common_options
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option(
    "--as",
    "decision",
    type=click.Choice(DECISIONS),
    required=True,
    help="sent: the recipient has it. resend: send it (once more). failed: give it up.",
)
def resolve(ids: tuple[str, ...], decision: str) -> None:
    """Decide about messages that are uncertain.

    Nobody knows whether they were sent.
    Look at the phone, or ask the recipient. `resend` may send it twice, `sent` and `failed` send
    nothing.

    \b
    whatsappctl outbox list --state uncertain
    whatsappctl outbox resolve 0c8d0f4a5b6c7d8e --as sent
    """
    with client() as daemon:
        _each(ids, lambda id: daemon.request("message.resolve", {"id": id, "as": decision}))


def _each(ids: tuple[str, ...], do: Callable[[str], dict[str, Any]]) -> None:
    """Do it to every one of them, and end with the first error that concerned one alone."""
    first: WhatsappdError | None = None
    for id in ids:
        try:
            row = do(id)
        except WhatsappdError as error:
            if len(ids) == 1 or error.name not in ("wrong_state", "unknown_message", "denied"):
                raise
            first = first or error
            if options().json:
                print_json({"id": id, "error": error.as_wire()})
            else:
                say(f"{id}: {error.message}", err=True)
            continue
        if options().json:
            print_json(row)
        else:
            say(f"{row['id']} {row['state']}")
    if first is not None:
        click.get_current_context().exit(first.exit_code)
