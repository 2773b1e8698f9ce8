"""The `whatsappd` command: the daemon itself, the demo, and the sandbox on its own.

Talking to a running daemon is `whatsappctl`'s business. Modules are imported by the command that
needs them: `whatsappd sandbox` has no use for the daemon's parts.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from whatsappd import __version__, garbage_collection, stdio
from whatsappd.command_runner import run as run_command
from whatsappd.errors import EXIT_FAILED, WhatsappdError
from whatsappd.logs.setup import LAST_WORDS, LEVELS, close_logs, configure_logs
from whatsappd.wire.escape import printable

if TYPE_CHECKING:
    from whatsappd.config.sources import Sources

#: What the extra `gateway` installs.
_GATEWAY_NEEDS = ("httpcore",)
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
    _print_lines(f"whatsappd: {error.message}", err=True)
    sys.exit(error.exit_code)


def _print_lines(text: str, *, err: bool = False) -> None:
    """Print lines that quote what others wrote."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err)


_log_level = click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    envvar="WHATSAPPD_LOG_LEVEL",
    help="The least important log lines to print (on stderr).",
)


def main() -> NoReturn:
    """The program: runs the command, and ends the process."""
    stdio.prepare(patience=LAST_WORDS)
    # A terminal may stop jobs in the background that print (`stty tostop`): a daemon goes on.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    code = run_command(cli, "whatsappd")
    close_logs()
    sys.exit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="whatsappd")
def cli() -> None:
    """whatsappd is the only owner of a host's WhatsApp sessions, one per company.

    \b
    whatsappd demo             try all of it, without a phone
    whatsappd run              the daemon; talk to it with whatsappctl
    whatsappd run --sandbox    the daemon with a loopback WhatsApp
    whatsappd check            its settings and its state directory

    `whatsappctl help` lists the guides.
    """


def _configured(command: Callable[..., None]) -> Callable[..., None]:
    """The options that settings come from; the command gets them as `sources`."""

    @wraps(command)
    def with_sources(
        *,
        config: Path | None,
        sandbox: bool,
        sandbox_at: Path | None,
        assignments: tuple[str, ...],
        **options: Any,
    ) -> None:
        from whatsappd.config.sources import Sources

        arguments = dict(_assignment(each) for each in assignments)
        for name in ("state_dir", "socket", "log_level", "log_format"):
            value = options.pop(name)
            if value is not None:
                arguments[name] = (f"--{name.replace('_', '-')}", str(value))
        sources = Sources(dict(os.environ), arguments, config, sandbox, sandbox_at)
        command(sources=sources, **options)

    for option in reversed(_CONFIGURATION):
        with_sources = option(with_sources)
    return with_sources


def _assignment(text: str) -> tuple[str, tuple[str, str]]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text}: write KEY=VALUE, such as queue.limit=500")
    return key.strip(), ("--set", value.strip())


_CONFIGURATION = (
    click.option(
        "--config",
        type=_PATH,
        metavar="FILE",
        help="The settings' file (TOML). Default: WHATSAPPD_CONFIG, else "
        "/etc/whatsappd/whatsappd.toml for root, ~/.config/whatsappd/whatsappd.toml for users, "
        "if it is there.",
    ),
    click.option(
        "--state-dir",
        type=_PATH,
        help="Where accounts, messages and events are kept. Default: /var/lib/whatsappd for root, "
        "~/.local/state/whatsappd for users; with --sandbox the same with -sandbox.",
    ),
    click.option(
        "--socket",
        type=_PATH,
        help="The Unix socket to listen on. Default: /run/whatsappd/whatsappd.sock for root, "
        "$XDG_RUNTIME_DIR/whatsappd/whatsappd.sock for users.",
    ),
    click.option("--sandbox", is_flag=True, help="Use a loopback WhatsApp, run by the daemon."),
    click.option(
        "--sandbox-at",
        type=_PATH,
        metavar="FILE",
        help="Use the loopback WhatsApp that `whatsappd sandbox --info FILE` runs.",
    ),
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
    click.option("--log-format", metavar="FORMAT", help="auto, json or console."),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any setting, such as limits.per_company_per_minute=20. May be repeated.",
    ),
)


@cli.command()
@_configured
def run(sources: Sources) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    Settings come from the options below, WHATSAPPD_* variables, and a file; `whatsappd check`
    shows them.
    """
    from whatsappd.shutdown import ShutdownGuard

    guard = ShutdownGuard(close_logs)
    guard.listen()

    with garbage_collection.paused():
        import trio

        from whatsappd.app import run_daemon
        from whatsappd.config.live import LiveSettings
        from whatsappd.config.load import load
        from whatsappd.confinement.process import keep_memory_private
        from whatsappd.working_directory import leave_starting_directory

    configuration = load(sources)
    keep_memory_private()
    leave_starting_directory()
    configure_logs(configuration.settings.logs.level, configuration.settings.logs.format)
    trio.run(run_daemon, LiveSettings(sources, configuration), guard)


@cli.command()
@_configured
@click.option("--sample", is_flag=True, help="Print a commented configuration file, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(ctx: click.Context, sources: Sources, sample: bool, as_json: bool) -> None:
    """Show the settings; check the state directory.

    Looks at its databases too. Takes the options of `whatsappd run`, changes nothing, and may run
    beside the daemon. Exit codes: 0 all is well, 1 something is not, 2 the configuration is wrong.
    """
    import json

    from whatsappd.check import inspect
    from whatsappd.config.load import load
    from whatsappd.config.reference import sample as written_sample

    if sample:
        click.echo(written_sample(), nl=False)
        return
    report = inspect(load(sources), sources)
    if as_json:
        click.echo(json.dumps(report.as_wire()))
    else:
        _print_lines("\n".join(report.lines()))
    ctx.exit(0 if report.is_ok else EXIT_FAILED)


@cli.command()
@_configured
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Check FILE, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def restore(sources: Sources, file: Path, dry_run: bool, as_json: bool) -> None:
    """Put a backup back: FILE is what `whatsappctl backup` wrote.

    The daemon must be stopped, and so must what wakes it (`systemctl stop whatsappd.socket
    whatsappd.service`). It takes the options of `whatsappd run`. As root it writes as the user who
    owns the state directory.

    FILE is checked first, all of it. What is there now is kept beside it (`before-restore-TIME`).
    Killed at any moment, this has changed nothing, or the next start finishes it.
    """
    import json

    from whatsappd.config.load import load
    from whatsappd.restore import restore as put_back
    from whatsappd.state_directory import REAL, SANDBOX, StateDirectory

    settings = load(sources).settings
    mode = SANDBOX if settings.is_sandboxed else REAL
    state = StateDirectory(settings.state.directory)
    found = put_back(file, state, settings.socket.path, mode=mode, dry_run=dry_run)
    if as_json:
        kept = str(found.kept) if found.kept else None
        click.echo(json.dumps({**found._asdict(), "kept": kept, "dry_run": dry_run}))
        return
    what = "the database; the accounts stay as they are"
    if found.companies is not None:
        what = f"the database and the accounts of {len(found.companies)} companies"
    _print_lines(f"{'sound, and would be restored' if dry_run else 'restored'}: {what}")
    if found.kept is not None:
        _print_lines(f"what was there before is in {found.kept}; remove it when all is well")


@cli.command()
@click.option("--keep", is_flag=True, help="Leave everything running, and print what to try.")
@_log_level
@click.pass_context
def demo(ctx: click.Context, keep: bool, log_level: str) -> None:
    """Try all of it, without a phone.

    Links two companies and sends a message from one to the other. It starts a daemon with a
    loopback WhatsApp in a directory of its own, and talks to it as any script would.
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


class _GatewayCommand(_Command):
    """Its options are what the gateway's own settings declare; they are loaded when needed."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from whatsappd.gateway.options import click_options

        return [*click_options(), *super().get_params(ctx)]


@cli.command(cls=_GatewayCommand)
@_log_level
def gateway(log_level: str, **options: Any) -> None:
    """REST, WebSocket and a page, for programs elsewhere.

    \b
    whatsappctl keys create "web shop" --scope send
    whatsappd gateway
    curl -H "Authorization: Bearer wak_..." http://127.0.0.1:8080/v1/sessions

    The documentation of the API is at /docs. The daemon may start later, and restart.
    """
    from whatsappd.shutdown import GATEWAY_WITHIN, ShutdownGuard

    guard = ShutdownGuard(close_logs, within_s=GATEWAY_WITHIN)
    guard.listen()

    try:
        with garbage_collection.paused():
            import trio

            from whatsappd.gateway.run import run_gateway
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _GATEWAY_NEEDS:
            raise
        raise click.UsageError(
            f"the gateway needs {error.name}: install it with pip install 'whatsappd[gateway]'"
        ) from error
    from whatsappd.confinement.process import keep_memory_private
    from whatsappd.gateway.options import settings_from
    from whatsappd.working_directory import leave_starting_directory

    configure_logs(log_level)
    settings = settings_from(options)
    keep_memory_private()
    leave_starting_directory()
    trio.run(partial(run_gateway, settings, guard=guard))


@cli.command()
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
    import signal

    import trio

    from whatsappd.sandbox_app import run_sandbox
    from whatsappd.working_directory import from_start, leave_starting_directory

    # A daemon that starts it has these blocked for itself.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

    configure_logs(log_level)
    directory = directory or info_file.with_name(info_file.name + ".d")
    directory, info_file = from_start(directory), from_start(info_file)
    leave_starting_directory()
    trio.run(run_sandbox, directory, info_file, port, while_stdin, log_level)
