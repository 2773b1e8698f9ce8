"""`whatsappctl qr`."""

from __future__ import annotations

import sys

import click

from whatsappctl.command_options import client, common_options, company_argument, options
from whatsappctl.output import in_time, print_json, say

#: Seconds to wait for the code of a session that is just starting.
PATIENCE = 10.0


@click.command("qr")
@common_options
@company_argument()
@click.option("--png", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE",
              help="Write an image instead; - is stdout.")  # fmt: skip
@click.option("--text", is_flag=True, help="Print the code's text instead.")
def command(company: str, png: str | None, text: bool) -> None:
    """Show the QR code that links COMPANY's session to a phone.

    On the phone: Settings, Linked devices, Link a device. A code is good for 20 to 60 seconds;
    `whatsappctl start COMPANY` shows each new one in its place.
    """
    from whatsappctl.commands._waits import wait_for_qr

    with client() as daemon:
        answer = wait_for_qr(daemon, company, deadline=PATIENCE)
    if png is not None:
        from whatsappctl.qrcode import write_png

        write_png(answer["qr"], png)
        if png != "-":
            say(f"{png}: good for {_left(answer)}", err=True)
    elif options().json:
        print_json(answer)
    elif text or not sys.stdout.isatty():
        say(answer["qr"])
    else:
        from whatsappctl.qrcode import drawn

        click.echo(drawn(answer["qr"], color=True))
        say(f"good for {_left(answer)}", err=True)


def _left(answer: dict[str, int]) -> str:
    return in_time(answer["expires_ms"]).removeprefix("in ")
