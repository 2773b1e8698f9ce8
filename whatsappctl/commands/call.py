"""`whatsappctl call`."""

from __future__ import annotations

import click

from whatsappctl.command_options import Seconds, client, common_options, read_stdin
from whatsappctl.output import print_json


@click.command("call")
@common_options
@click.argument("method")
@click.argument("arguments", metavar="[JSON]", required=False)
@click.option(
    "--timeout",
    type=Seconds(min_open=True),
    metavar="SECONDS",
    help="Give up after this time. Default: 30.",
)
def command(method: str, arguments: str | None, timeout: float | None) -> None:
    """Call METHOD with a JSON object of named arguments (- reads it from stdin); prints JSON.

    \b
    whatsappctl call daemon.hello
    whatsappctl call session.status '{"company": "acme"}'
    """
    from json import loads

    try:
        text = read_stdin("the arguments") if arguments == "-" else arguments
        given = loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"the arguments are not JSON: {error}") from error
    if not isinstance(given, dict):
        raise click.UsageError('the arguments must be one JSON object, such as {"company": "acme"}')
    settings = {} if timeout is None else {"deadline": timeout}
    with client(**settings) as daemon:
        print_json(daemon.request(method, given))
