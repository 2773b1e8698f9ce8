"""`whatsappctl metrics`."""

from __future__ import annotations

from pathlib import Path

import click

from whatsappctl.command_options import client, common_options, options
from whatsappctl.output import print_json
from whatsappd.errors import WhatsappdError

#: All that FILE holds when the daemon gives no figures: old ones would look like new ones.
AWAY = b"""\
# HELP whatsappd_up 1: the daemon gave its figures. 0, in a file: it did not.
# TYPE whatsappd_up gauge
whatsappd_up 0
"""


@click.command("metrics")
@common_options
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write them to FILE, all at once, for node_exporter's textfile collector (*.prom). A link "
    "is not followed, and only a regular file is replaced.",
)
@click.option("--rules", is_flag=True, help="Print sample alerting rules for Prometheus instead.")
@click.option("--dashboard", is_flag=True, help="Print a dashboard for Grafana (JSON) instead.")
def command(file: Path | None, rules: bool, dashboard: bool) -> None:
    """Print all figures in Prometheus' text format.

    With --file, a daemon that does not answer leaves no old figures behind: FILE then holds only
    `whatsappd_up 0`, which the sample rules notice, and the exit code says why.

    \b
    whatsappctl metrics | grep whatsappd_session_connected
    whatsappctl metrics --file /var/lib/node_exporter/whatsappd.prom
    whatsappctl metrics --rules > /etc/prometheus/rules/whatsappd.yml
    """
    if rules or dashboard:
        click.echo(_sample("prometheus-rules.yml" if rules else "grafana-dashboard.json"), nl=False)
        return
    try:
        content_type, body = _figures()
    except WhatsappdError:
        if file is not None:
            _write(file, AWAY)
        raise
    if file is not None:
        _write(file, body)
    elif options().json:
        print_json({"content_type": content_type, "text": body.decode()})
    else:
        click.echo(body, nl=False)


def _figures() -> tuple[str, bytes]:
    from gzip import decompress

    with client() as daemon:
        # Compressed, because with many companies they are larger than an answer may be.
        answer = daemon.call("daemon.metrics", gzip=True)
    return answer["content_type"], decompress(answer["body"])


def _sample(name: str) -> str:
    from importlib.resources import files

    return (files("whatsappd.monitoring") / name).read_text("utf-8")


def _write(file: Path, content: bytes) -> None:
    from whatsappd.files import PUBLIC, write_file

    # Its reader is another user.
    write_file(file, content, mode=PUBLIC, keep_mode=True)
