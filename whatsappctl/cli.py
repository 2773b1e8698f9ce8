"""The `whatsappctl` command: which verbs there are, and what all of them share.

A verb's module is imported when it is called. The one-line helps stand here, so that `--help`
imports none of them.
"""

from __future__ import annotations

import gc
import os
from importlib import import_module
from typing import Any, NoReturn

import click

from whatsappctl.command_options import Options, common_options, fail
from whatsappd import __version__, stdio
from whatsappd.command_runner import EXIT_INTERRUPTED, run
from whatsappd.errors import WhatsappdError

#: Section by section, as `--help` shows them. Each verb is `whatsappctl.commands.VERB`.
SECTIONS: dict[str, dict[str, str]] = {
    "Sessions": {
        "start": "Start a company's session; shows the QR code to scan.",
        "stop": "Stop a session, until it is started again.",
        "restart": "Stop a session and start it with a new worker.",
        "status": "The state of the daemon and its sessions.",
        "list": "The companies and their states.",
        "wait": "Wait until a session is connected, or the daemon answers.",
        "qr": "The QR code of a session that waits to be linked.",
        "logout": "Unlink a session from its phone.",
        "remove": "Unlink a company, and delete all that is stored for it.",
    },
    "Messages and events": {
        "send": "Send a text message, or many from a file.",
        "outbox": "The accepted messages: list, show, cancel, resolve.",
        "limits": "How fast a company may send.",
        "events": "Follow what happens: messages, receipts, states.",
    },
    "Health": {
        "health": "Whether all is well; also by the exit code.",
        "metrics": "All figures, for Prometheus.",
        "doctor": "Examine the installation, with remedies.",
    },
    "More": {
        "backup": "Copy the daemon's database while it runs.",
        "configure": "Change the daemon's log level while it runs.",
        "keys": "API keys for the gateway.",
        "webhooks": "URLs to which events are delivered.",
        "call": "Call any method of the daemon, with JSON.",
        "sandbox": "Virtual phones and faults, for a daemon in sandbox mode.",
        "completion": "Print the completion script for a shell.",
        "help": "Guides: how things work, with examples.",
    },
}

EPILOG = """\
\b
Exit codes:
  0  done                          6  timed out (what was asked for goes on)
  1  failed                        7  conflict, or not in this state
  2  wrong usage                   9  no such company or message
  3  whatsappd does not run       10  not allowed
  4  not connected                11  uncertain whether it was sent
  5  rate limited                130  interrupted

When stdout cannot be written, the code is 1 instead of 0, and stderr says why. When its reader has
gone away (`| head -1`), a command that does more than print goes on without it, and ends with its
own code; what only prints, or follows, ends with 0.

\b
Examples:
  whatsappctl start acme
  whatsappctl send acme +15550100 "Your order is ready."
  whatsappctl events --json --type message.received

Data goes to stdout, all else to stderr. The daemon's socket is --socket, else $WHATSAPPD_SOCKET,
else your own daemon's, else the system's.
"""


class LazyGroup(click.Group):
    """A group whose commands are modules, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verbs in SECTIONS.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = import_module(f"whatsappctl.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(verb.ljust(width), text) for verb, text in verbs.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near:
                raise
            raise click.UsageError(
                f"There is no command {args[0]!r}. Did you mean {near[0]}?", ctx
            ) from error

    def invoke(self, ctx: click.Context) -> Any:
        given = ctx.ensure_object(Options)  # before the verb's context is made, which shares it
        try:
            return super().invoke(ctx)
        except WhatsappdError as error:
            fail(error, as_json=given.json)
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(EXIT_INTERRUPTED)


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@common_options
@click.version_option(__version__, prog_name="whatsappctl")
def cli() -> None:
    """Talk to whatsappd, the owner of this host's WhatsApp sessions.

    Each COMPANY has one session, linked to one WhatsApp account. `whatsappctl COMMAND --help`
    explains a command, `whatsappctl help` lists the guides.
    """


def main() -> NoReturn:
    """The program: runs the command and ends the process.

    It ends without taking the interpreter apart, and collects no garbage, because together that is
    a fifth of all the time that a short command takes. Nothing here needs either: output is
    flushed, and the kernel closes what is open. Commands that run for long collect again.
    """
    gc.disable()
    stdio.prepare()
    os._exit(run(cli, "whatsappctl"))
