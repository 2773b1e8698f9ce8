"""`whatsappctl sandbox …`."""

from __future__ import annotations

from typing import Any

import click

from whatsappctl.command_options import client, common_options, company_argument, options
from whatsappctl.output import json_text, print_json, say
from whatsappd.errors import UnknownMethod

#: Seconds to wait for the code of a session that is just starting.
PATIENCE = 15.0


@click.group("sandbox")
@common_options
def command() -> None:
    """Virtual phones and faults, for a daemon in sandbox mode.

    `whatsappd run --sandbox` talks to a loopback WhatsApp instead of the real one. These commands
    are its phones:

    \b
    whatsappctl start acme --no-wait
    whatsappctl sandbox scan acme --phone +15550100
    """


def _ask(method: str, **arguments: Any) -> Any:
    try:
        with client() as daemon:
            return daemon.call(method, **arguments)
    except UnknownMethod as error:
        raise _no_sandbox(error) from error


def _no_sandbox(error: UnknownMethod) -> UnknownMethod:
    return UnknownMethod(
        "this daemon has no sandbox, it talks to the real WhatsApp: "
        "sandbox commands need one that was started with `whatsappd run --sandbox`",
        **error.data,
    )


def _print(answer: Any) -> None:
    if options().json or not isinstance(answer, dict):
        print_json(answer)
        return
    for name, value in answer.items():
        shown = json_text(value) if isinstance(value, (dict, list)) else value
        say(f"{name}: {shown}")


@command.command("info")
@common_options
def info() -> None:
    """Show where the sandbox listens, and what its clients must trust."""
    _print(_ask("sandbox.info"))


@command.command("scan")
@common_options
@company_argument(required=False)
@click.option("--qr", metavar="TEXT", help="Scan this code, instead of the one COMPANY shows.")
@click.option("--phone", required=True, metavar="NUMBER", help="The virtual phone that scans.")
def scan(company: str | None, qr: str | None, phone: str) -> None:
    """Let a virtual phone scan COMPANY's QR code.

    If none is shown yet, it waits a moment for one.
    """
    if (company is None) == (qr is None):
        raise click.UsageError("give either COMPANY or --qr")
    if qr is None:
        from whatsappctl.commands._waits import wait_for_qr

        assert company is not None
        _ask("sandbox.info")  # a daemon without a sandbox should say so now, not after waiting
        with client() as daemon:
            qr = wait_for_qr(daemon, company, deadline=PATIENCE)["qr"]
    _print(_ask("sandbox.scan", qr=qr, phone=phone))


@command.command("register")
@common_options
@click.argument("phone")
@click.option("--name", help="The name its owner shows to others.")
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="NUMBER",
    help="Another number under which a look-up finds it; may be repeated.",
)
def register(phone: str, name: str | None, aliases: tuple[str, ...]) -> None:
    """Make a virtual PHONE that can be written to."""
    _print(_ask("sandbox.register", phone=phone, name=name, aliases=list(aliases) or None))


@command.command("unlink")
@common_options
@click.argument("phone")
@click.option("--device", type=int, metavar="N", help="Only this linked device. Default: all.")
def unlink(phone: str, device: int | None) -> None:
    """Unlink devices on PHONE.

    Its owner would do that in Settings, Linked devices.
    """
    _print(_ask("sandbox.unlink", phone=phone, device=device))


@command.command("fault")
@common_options
@click.argument("kind")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
def fault(kind: str, arguments: tuple[str, ...]) -> None:
    """Make the sandbox misbehave in the way KIND says.

    The error for an unknown KIND lists those that there are.

    \b
    whatsappctl sandbox fault drop phone=+15550100
    whatsappctl sandbox fault freeze seconds=5
    whatsappctl sandbox fault refuse_dials count=3
    """
    given = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise click.UsageError(f"{argument!r}: write NAME=VALUE")
        given[name] = _value(value)
    _print(_ask("sandbox.fault", kind=kind, **given))


@command.command("stats")
@common_options
@click.option("--messages", is_flag=True, help="Every message, one by one.")
def stats(messages: bool) -> None:
    """Count what passed through the sandbox."""
    _print(_ask("sandbox.stats", messages=messages or None))


def _value(text: str) -> Any:
    """A number or a truth value where it looks like one; a phone number does not."""
    if text in ("true", "false"):
        return text == "true"
    if text[:1] != "+":
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text
