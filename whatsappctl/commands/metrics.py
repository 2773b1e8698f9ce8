"""`whatsappctl metrics`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from whatsappctl.common import client, common_options, options
from whatsappctl.output import print_json


@click.command("metrics")
@common_options
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write them to FILE, all at once, for node_exporter's textfile collector (*.prom).",
)
@click.option("--rules", is_flag=True, help="Print sample alerting rules for Prometheus instead.")
@click.option("--dashboard", is_flag=True, help="Print a dashboard for Grafana (JSON) instead.")
def command(file: Path | None, rules: bool, dashboard: bool) -> None:
    """Print all figures in Prometheus' text format.

    \b
    whatsappctl metrics | grep whatsappd_session_connected
    whatsappctl metrics --file /var/lib/node_exporter/whatsappd.prom
    whatsappctl metrics --rules > /etc/prometheus/rules/whatsappd.yml
    """
    if rules or dashboard:
        click.echo(_sample("prometheus-rules.yml" if rules else "grafana-dashboard.json"), nl=False)
        return
    from gzip import decompress

    with client() as daemon:
        # Compressed, because with many companies they are larger than an answer may be.
        answer = daemon.call("daemon.metrics", gzip=True)
    body = decompress(answer["body"])
    if file is not None:
        _replace(file, body)
    elif options().json:
        print_json({"content_type": answer["content_type"], "text": body.decode()})
    else:
        click.echo(body, nl=False)


def _sample(name: str) -> str:
    from importlib.resources import files

    return (files("whatsappd.monitoring") / name).read_text()


def _replace(file: Path, content: bytes) -> None:
    """Put `content` in the place of `file` in one step: its reader never sees half of it."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.chmod(0o644)
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise click.ClickException(f"{file}: {error.strerror}") from error
