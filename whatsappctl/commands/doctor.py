"""`whatsappctl doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from whatsappctl.command_options import client, common_options, options
from whatsappctl.output import finding_lines, print_json
from whatsappd.errors import EXIT_FAILED, WhatsappdError

if TYPE_CHECKING:
    from whatsappctl.doctor_checks import DoctorFinding


@click.command("doctor")
@common_options
@click.option(
    "--state-dir",
    metavar="PATH",
    help="The state directory to look at, if no daemon answers that could tell.",
)
def command(state_dir: str | None) -> None:
    """Examine the installation: what is wrong, and what to do about it.

    Works with and without a running daemon. The exit code is 1 if something must be mended;
    warnings are not counted.

    \b
    whatsappctl doctor
    sudo -u whatsappd whatsappctl doctor
    """
    from whatsappctl.doctor_checks import FAIL

    found = list(_examine(state_dir))
    if options().json:
        print_json([finding.as_wire() for finding in found])
    else:
        click.echo("\n".join(finding_lines(found)))
    if any(finding.level == FAIL for finding in found):
        click.get_current_context().exit(EXIT_FAILED)


def _examine(state_dir: str | None) -> Iterator[DoctorFinding]:
    from whatsappctl import doctor_checks
    from whatsappd.model.paths import default_state_dir

    hello: dict[str, Any] | None = None
    status: dict[str, Any] = {}
    error: WhatsappdError | None = None
    with client(deadline=5) as daemon:
        path = daemon.path
        try:
            hello = daemon.hello()
            status = daemon.status()
        except WhatsappdError as failure:
            error = failure
    directory = state_dir or status.get("state_dir") or default_state_dir()
    pid = hello["pid"] if hello else None
    companies = len(status.get("companies", ())) or doctor_checks.count_companies(directory)

    yield from doctor_checks.versions(hello)
    yield doctor_checks.answers(path, hello, error)
    yield from doctor_checks.socket_permissions(path)
    yield doctor_checks.state_permissions(directory)
    yield doctor_checks.disk(directory)
    yield doctor_checks.clock()
    yield doctor_checks.open_files(pid, companies)
    yield from doctor_checks.tasks(pid, companies)
    yield doctor_checks.confinement(status)
    yield doctor_checks.whatsapp(is_sandboxed=hello is not None and hello["mode"] == "sandbox")
    yield doctor_checks.ffmpeg()
