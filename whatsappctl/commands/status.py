"""`whatsappctl status`."""

from __future__ import annotations

from typing import Any

import click

from whatsappctl.command_options import client, common_options, company_argument, options
from whatsappctl.output import age, in_time, number, print_json, table
from whatsappd.wire.escape import printable


@click.command("status")
@common_options
@company_argument(required=False)
def command(company: str | None) -> None:
    """Show how the daemon and all sessions are, or all that is known about COMPANY.

    The exit code tells whether the daemon answered, not whether sessions are well: for that there
    is `whatsappctl wait COMPANY --timeout 0`.
    """
    with client() as daemon:
        status = daemon.status(company)
    if options().json:
        print_json(status)
    elif company is None:
        click.echo(_daemon(status))
    else:
        click.echo(_session(status))


def _daemon(status: dict[str, Any]) -> str:
    version = printable(status["version"])
    head = f"whatsappd {version}  pid {status['pid']}  up {age(status['started_ms'])}"
    if status["connections"] is not None:  # told to those who may look at all companies
        head += f"  {status['connections']} connections"
    if status["mode"] == "sandbox":
        head += "\nSANDBOX: nothing here is the real WhatsApp"
    problem = (status["fork_server"] or {}).get("problem")
    if problem:
        head += f"\nfork server: {printable(problem)}"
    if confinement := _unconfined(status.get("confinement")):
        head += f"\nconfinement: {printable(confinement)}"
    companies = status["companies"]
    if not companies:
        return f"{head}\nno companies yet: `whatsappctl start COMPANY` links the first"
    rows = [
        (
            session["company"],
            session["state"],
            age(session["since_ms"]),
            in_time(session["next_try_ms"]),
            session["queued"],
            number(session["jid"]),
            session["cause"],
        )
        for session in companies
    ]
    titles = ("COMPANY", "STATE", "FOR", "NEXT TRY", "QUEUED", "NUMBER", "CAUSE")
    return f"{head}\n\n{table(titles, rows)}"


def _unconfined(confinement: dict[str, Any] | None) -> str | None:
    """What keeps workers from what is not theirs, unless all of it does."""
    if confinement is None or not confinement["known"]:
        return None
    if confinement["lacking"] is None:
        return None
    return f"workers are not confined in full: {confinement['lacking']}"


def _session(status: dict[str, Any]) -> str:
    facts = {
        "company": status["company"],
        "state": f"{status['state']} for {age(status['since_ms'])}",
        "cause": status["cause"],
        "next try": in_time(status["next_try_ms"]),
        "wanted": "started" if status["wanted"] else "stopped",
        "number": number(status["jid"]),
        "bound to": number(status.get("account")),
        "jid": status["jid"],
        "lid": status["lid"],
        "name": status["push_name"],
        "queued": status["queued"],
        "last message in": _ago(status["last_inbound_ms"]),
        "last error": status["last_error"],
        "worker": f"pid {status['worker_pid']}" if status["worker_pid"] else None,
        "restarts": status["restarts"],
        "recycled": _recycled(status),
    }
    lines = [
        f"{name + ':':<17}{printable(value)}"
        for name, value in facts.items()
        if value is not None and value != "-"
    ]
    if status.get("qr_shown", status["qr"]):  # a daemon before this one told the code only
        lines.append(f"{'qr:':<17}whatsappctl qr {status['company']}")
    return "\n".join(lines)


def _recycled(status: dict[str, Any]) -> str | None:
    if not status["recycled"]:
        return None
    return f"{status['recycled']} times, last for {status['last_recycled']}"


def _ago(at_ms: int | None) -> str | None:
    return f"{age(at_ms)} ago" if at_ms else None
