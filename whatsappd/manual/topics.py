"""Which guides there are, in the order in which they are listed, each with one line about it."""

from __future__ import annotations

from pathlib import Path

#: Each is a file beside this one, `NAME.md`.
TOPICS: dict[str, str] = {
    "linking": "Link a phone, and what each state of a session means.",
    "sending": "Send a message, follow it, and how fast a company may send.",
    "batches": "Send many messages from a file, and repeat that safely.",
    "events": "Follow messages, receipts and states without missing any.",
    "commands": "All commands, exit codes, and what they print.",
    "scripting": "Use whatsappd from shell scripts and programs.",
    "methods": "Every method of the socket: its arguments and its answer.",
    "errors": "Every error: its name, code, exit code and HTTP status.",
    "gateway": "REST, WebSocket and a web page, for programs elsewhere.",
    "webhooks": "Have events delivered to a URL.",
    "configuration": "All settings, and where they come from.",
    "access": "Who may call the daemon, and how much each caller may hold.",
    "systemd": "Run the daemon and the gateway as services.",
    "monitoring": "Health, alerts, logs and metrics.",
    "backup": "Copy everything while the daemon runs, and put it back.",
    "security": "What is protected from whom, and how workers are confined.",
    "sandbox": "A WhatsApp on this machine, to try and test without a phone.",
    "troubleshooting": "From a symptom to what to do.",
    "promises": "What is promised, what is not, and what was measured.",
    "figures": "Speed, memory and reliability, with how they were measured.",
    "internals": "The processes, and what each does when another fails.",
    "development": "Run the tests, and find your way in the code.",
}

_DIRECTORY = Path(__file__).parent


def path_of(topic: str) -> Path:
    """The file of a guide. `topic` is one of TOPICS."""
    assert topic in TOPICS
    return _DIRECTORY / f"{topic}.md"


def read(topic: str) -> str:
    """A guide, in Markdown. `topic` is one of TOPICS."""
    return path_of(topic).read_text(encoding="utf-8")
