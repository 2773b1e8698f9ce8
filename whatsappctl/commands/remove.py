"""`whatsappctl remove`."""

from __future__ import annotations

import click

from whatsappctl.command_options import client, common_options, company_argument, options
from whatsappctl.output import print_json, say


@click.command("remove")
@common_options
@company_argument()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--force",
    is_flag=True,
    help="Remove it although WhatsApp cannot be told: the phone goes on listing the device.",
)
def command(company: str, yes: bool, force: bool) -> None:
    """Unlink COMPANY, and delete all that is stored for it.

    Its messages, events and files go, and API keys and webhooks that are for it alone. Only the
    audit trail still tells who did what. The account on the phone stays
    as it is. Asks first, unless --yes is given.
    """
    if not yes:
        question = f"Unlink {company} and delete all that is stored for it?"
        click.confirm(question, abort=True, err=True)
    with client() as daemon:
        answer = daemon.remove(company, force=force)
    if options().json:
        print_json(answer)
    else:
        say(f"{company}: removed")
