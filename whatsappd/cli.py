"""The `whatsappd` command: the daemon itself, the demo, and the sandbox on its own.

Talking to a running daemon is `whatsappctl`'s business. Modules are imported by the command that
needs them: `whatsappd sandbox` has no use for the daemon's parts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from whatsappd import __version__
from whatsappd.errors import EXIT_FAILED, WhatsappdError
from whatsappd.logs import LEVELS, configure_logs

_PATH = click.Path(path_type=Path, dir_okay=True)


class _Command(click.Command):
    """Turns the errors that have an exit code into one line and that code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WhatsappdError as error:
            _fail(error)
        except BaseExceptionGroup as group:
            _fail(_only_error(group))


class _Group(click.Group):
    command_class = _Command


def _only_error(group: BaseExceptionGroup[BaseException]) -> WhatsappdError:
    """The error that nurseries wrapped; anything else is a defect and is raised as it is."""
    ours, others = group.split(WhatsappdError)
    if others is not None or ours is None:
        raise group
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, WhatsappdError)
    return error


def _fail(error: WhatsappdError) -> NoReturn:
    click.echo(f"whatsappd: {error.message}", err=True)
    sys.exit(error.exit_code)


_log_level = click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    envvar="WHATSAPPD_LOG_LEVEL",
    help="The least important log lines to print (on stderr).",
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="whatsappd")
def main() -> None:
    """whatsappd is the only owner of a host's WhatsApp sessions, one per company.

    \b
    whatsappd demo             try all of it, without a phone
    whatsappd run              the daemon; talk to it with whatsappctl
    whatsappd run --sandbox    the daemon with a loopback WhatsApp
    """


@main.command()
@click.option(
    "--state-dir",
    type=_PATH,
    envvar="WHATSAPPD_STATE_DIR",
    help="Where accounts, messages and events are kept. Default: /var/lib/whatsappd for root, "
    "~/.local/state/whatsappd for users; with --sandbox the same with -sandbox.",
)
@click.option(
    "--socket",
    type=_PATH,
    envvar="WHATSAPPD_SOCKET",
    help="The Unix socket to listen on. Default: /run/whatsappd/whatsappd.sock for root, "
    "$XDG_RUNTIME_DIR/whatsappd/whatsappd.sock for users.",
)
@click.option("--sandbox", is_flag=True, help="Use a loopback WhatsApp, run by the daemon.")
@click.option(
    "--sandbox-at",
    type=_PATH,
    metavar="FILE",
    help="Use the loopback WhatsApp that `whatsappd sandbox --info FILE` runs.",
)
@_log_level
def run(
    state_dir: Path | None,
    socket: Path | None,
    sandbox: bool,
    sandbox_at: Path | None,
    log_level: str,
) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C."""
    import trio

    from whatsappd.app import run_daemon
    from whatsappd.config import make_settings
    from whatsappd.sessions.settings import SessionSettings

    configure_logs(log_level)
    settings = make_settings(
        state_dir=state_dir,
        socket=socket,
        log_level=log_level,
        sandbox=sandbox,
        sandbox_at=sandbox_at,
    )
    trio.run(run_daemon, settings, SessionSettings(log_level=log_level.upper()))


@main.command()
@click.option("--keep", is_flag=True, help="Leave everything running, and print what to try.")
@_log_level
@click.pass_context
def demo(ctx: click.Context, keep: bool, log_level: str) -> None:
    """Link two companies and send a message from one to the other, without a phone.

    Starts a daemon with a loopback WhatsApp in a directory of its own, and talks to it as any
    script would.
    """
    import trio

    from whatsappd.demo import DemoFailed, run_demo

    try:
        trio.run(run_demo, keep, log_level)
    except* DemoFailed as group:
        failed: BaseException = group
        while isinstance(failed, BaseExceptionGroup):
            failed = failed.exceptions[0]
        click.echo(f"\ndemo failed: {failed}", err=True)
        ctx.exit(EXIT_FAILED)


@main.command()
@click.option(
    "--info",
    "info_file",
    type=_PATH,
    required=True,
    help="Where to write how to reach and trust it (JSON).",
)
@click.option(
    "--directory",
    type=_PATH,
    help="Its state: keys and accounts. Default: FILE's name with .d, beside FILE.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: any free port.")
@click.option("--while-stdin", is_flag=True, help="Stop when stdin is closed.")
@_log_level
def sandbox(
    info_file: Path, directory: Path | None, port: int, while_stdin: bool, log_level: str
) -> None:
    """Run only the loopback WhatsApp, on 127.0.0.1.

    A daemon uses it with `whatsappd run --sandbox-at FILE`; it is controlled over the socket that
    FILE names as `control`.
    """
    import trio

    from whatsappd.sandbox_app import run_sandbox

    configure_logs(log_level)
    directory = directory or info_file.with_name(info_file.name + ".d")
    trio.run(
        run_sandbox, directory.absolute(), info_file.absolute(), port, while_stdin, log_level
    )
