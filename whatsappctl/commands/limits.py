"""`whatsappctl limits`."""

from __future__ import annotations

import click

from whatsappctl.command_options import client, common_options, company_argument, options
from whatsappctl.output import print_json, say, table
from whatsappd.wire.escape import printable

#: The names in the RPC (and in `whatsappd.limits.settings.SendLimits`), and for people.
NAMES = {
    "per_minute": "messages a minute",
    "per_phone_per_minute": "messages a minute to one number",
    "cold_per_hour": "first messages an hour",
    "cold_per_day": "first messages a day",
}

_LIMIT = click.IntRange(min=0)


@click.command("limits")
@common_options
@company_argument(required=False)
@click.option("--per-minute", type=_LIMIT, metavar="N", help="Messages a minute.")
@click.option(
    "--per-phone",
    "per_phone_per_minute",
    type=_LIMIT,
    metavar="N",
    help="Messages a minute to the same number.",
)
@click.option(
    "--cold-per-hour",
    type=_LIMIT,
    metavar="N",
    help="First messages an hour: to people never written to or heard from.",
)
@click.option("--cold-per-day", type=_LIMIT, metavar="N", help="First messages a day.")
@click.option(
    "--reset",
    is_flag=True,
    help="Give the limits that are not named here the daemon's defaults again.",
)
def command(company: str | None, reset: bool, **given: int | None) -> None:
    """Show how fast COMPANY may send, or change it. 0 switches a limit off.

    Without COMPANY, show what callers of the daemon and the gateway may hold (connections, event
    streams, and so on), and who holds most.

    Changes hold at once, and also after a restart. Messages above a limit wait for their turn.
    WhatsApp restricts and bans accounts that write much, above all to strangers: raise with care.

    \b
    whatsappctl limits
    whatsappctl limits acme
    whatsappctl limits acme --per-minute 10 --cold-per-day 50
    whatsappctl limits acme --reset
    """
    changes = {
        name: value for name, value in given.items() if value is not None or reset
    }  # None gives a limit its default again
    if company is None:
        if changes:
            raise click.UsageError("say which COMPANY")
        _show_bounds()
        return
    with client() as daemon:
        answer = daemon.request("session.configure", {"company": company, **changes})
    if options().json:
        print_json(answer)
        return
    for name, value in answer["limits"].items():
        say(f"{printable(NAMES.get(name, name)) + ':':<33}{value or 'off'}")


def _show_bounds() -> None:
    with client() as daemon:
        answer = daemon.request("daemon.limits", {})
    if options().json:
        print_json(answer)
        return
    rows = [
        (
            bound["name"],
            "-" if bound["held"] is None else bound["held"],
            bound["each"],
            bound["all"],
            bound["kept"],
            ", ".join(f"{_shown(each['holder'])}: {each['held']}" for each in bound["holders"]),
        )
        for bound in answer["bounds"]
    ]
    click.echo(table(("BOUND", "HELD", "EACH", "ALL", "KEPT", "WHO HOLDS MOST"), rows))


def _shown(holder: str) -> str:
    return holder.replace(":", " ", 1)
