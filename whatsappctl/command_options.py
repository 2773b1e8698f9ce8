"""What all commands share: the options --socket and --json, the client, and how errors end.

Everything here is on the way of each command, so imports are few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from whatsappctl.client import Client
    from whatsappd.errors import WhatsappdError

F = TypeVar("F", bound=Callable[..., Any])


class Options:
    """--socket and --json, wherever they were given: before the verb or behind it."""

    def __init__(self) -> None:
        self.socket: str | None = None
        self.json = False


class Seconds(click.FloatRange):
    """A time on the command line. Ten years at the most: what is longer is a slip of the finger."""

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(min=0, min_open=min_open, max=10 * 366 * 24 * 3600)

    def _describe_range(self) -> str:
        return ""  # in --help: nobody needs to be told of ten years

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if number != number:  # noqa: PLR0124 - NaN, which is neither above nor below any bound
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return number


def options() -> Options:
    """Those of the command that runs."""
    return click.get_current_context().ensure_object(Options)


def client(**settings: Any) -> Client:
    """The client of the command that runs."""
    from whatsappctl.client import Client

    return Client(options().socket, **settings)


def common_options(command: F) -> F:
    """Give a command --socket and --json."""

    def set_socket(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(Options).socket = value

    def set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Options).json = True

    with_json = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=set_json,
        help="Print JSON, for programs.",
    )
    with_socket = click.option(
        "--socket",
        metavar="PATH",
        expose_value=False,
        callback=set_socket,
        help="The daemon's socket.",
    )
    return with_socket(with_json(command))


def company_argument(*, required: bool = True) -> Callable[[F], F]:
    """Give a command COMPANY, which the shell completes."""
    return click.argument("company", required=required, shell_complete=_complete_company)


def _complete_company(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from whatsappctl.client import Client
    from whatsappd.errors import WhatsappdError

    try:
        with Client(ctx.ensure_object(Options).socket, deadline=1) as asked:
            companies = [session["company"] for session in asked.sessions()]
    except WhatsappdError:
        return []  # a shell that completes has no place for an error
    return [company for company in companies if company.startswith(incomplete)]


def read_stdin(what: str) -> str:
    """All of stdin as text; `what` it should have been, for the complaint if it is none."""
    from whatsappd import stdio

    try:
        return stdio.read_stdin()
    except stdio.BadText as error:
        raise click.UsageError(f"{what}: {error}") from error
    except OSError as error:
        raise click.UsageError(f"{what}: stdin cannot be read: {error.strerror}") from error


def fail(error: WhatsappdError, *, as_json: bool) -> NoReturn:
    """Tell an error on stderr, and end with its exit code."""
    if as_json:
        from whatsappctl.output import json_text

        click.echo(json_text({"error": error.as_wire()}), err=True)
    else:
        from whatsappd.wire.escape import printable

        click.echo(f"whatsappctl: {printable(error.message)}", err=True)
    click.get_current_context().exit(error.exit_code)
