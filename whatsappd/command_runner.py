"""How `whatsappctl` and `whatsappd` run a click command as their whole process.

Every command ends with its own exit code and at most one line about what went wrong, whatever its
streams are: closed, full, or without a reader. `whatsappd.stdio` has the rules for the streams.
"""

from __future__ import annotations

import io
import sys

import click

from whatsappd import stdio
from whatsappd.errors import EXIT_FAILED, EXIT_USAGE
from whatsappd.wire.escape import printable

EXIT_INTERRUPTED = 130


class OutputEnded(Exception):
    """Nobody takes what is printed any more: a command that does nothing but print ends with it."""


def echo(text: str) -> None:
    """Print a line of many.

    Raises:
        OutputEnded: it did not arrive, and so will no other.
    """
    click.echo(text)
    check_output()


def check_output() -> None:
    """Raises: OutputEnded: what is printed arrives nowhere."""
    if stdio.failure_of_stdout() is not None:
        raise OutputEnded


def run(command: click.Command, name: str) -> int:
    """Run `command` with this process's arguments; its exit code. Call `stdio.prepare` before."""
    code: object = EXIT_FAILED
    try:
        code = command.main(args=stdio.arguments(), prog_name=name, standalone_mode=False)
    except stdio.BadText as error:
        click.echo(f"{name}: {printable(error)}", err=True)
        code = EXIT_USAGE
    except OutputEnded:
        code = 0
    except click.ClickException as error:
        told = io.StringIO()
        error.show(file=told)
        _print_lines(told.getvalue())
        code = error.exit_code
    except click.Abort:
        click.echo("Aborted!", err=True)
    except KeyboardInterrupt:
        click.echo(err=True)
        code = EXIT_INTERRUPTED
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - a defect: as the interpreter would show it
        import traceback

        _print_lines(traceback.format_exc())
    return _with_output(name, code if isinstance(code, int) else int(code is not None))


def _print_lines(text: str) -> None:
    """Print lines on stderr that quote what others may have written."""
    click.echo("\n".join(map(printable, text.rstrip("\n").split("\n"))), err=True)


def _with_output(name: str, code: int) -> int:
    """The exit code when what was printed is taken into account."""
    sys.stdout.flush()
    failure = stdio.failure_of_stdout()
    if failure is not None and not stdio.is_gone(failure):
        click.echo(f"{name}: stdout cannot be written: {failure.strerror}", err=True)
        code = code or EXIT_FAILED
    sys.stderr.flush()
    return code
