"""The sample file and the manual's table of settings, written from what the parts declare.

`whatsappd check --sample` prints the sample. After a change of the definitions,
`python -m whatsappd.manual renew` renews the table.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from whatsappd.config.access import EXAMPLE
from whatsappd.config.definitions import DEFINITIONS, SECTIONS, Definition
from whatsappd.errors import InvalidParams
from whatsappd.setting import HostDefault

_WIDTH = 96

_HEAD = """\
Settings of whatsappd. Everything is commented out and shows its default.

Read from /etc/whatsappd/whatsappd.toml by root's daemon and the systemd service, from
$XDG_CONFIG_HOME/whatsappd/whatsappd.toml (~/.config) by users', or from the file that --config or
WHATSAPPD_CONFIG names. The environment comes before this file (limits.redis_url is
WHATSAPPD_LIMITS_REDIS_URL), and the command line before the environment. Durations are texts such
as "30s", "5m", "12h", "7d", or seconds; sizes such as "512MB", "1GiB", or bytes.

`whatsappd check` tells whether it is right. Settings marked [reload] follow
`systemctl reload whatsappd` (SIGHUP); the others, a restart."""

_ACCESS = """\
Who may call the daemon, beside root and its own user. Without any rule: everybody whom the
socket's permissions let in. With rules: only those they name, and only what they say; rules add
up. [reload]"""


def sample() -> str:
    """A commented file with every setting at its default, for the present user."""
    lines = [*_comment(_HEAD)]
    for section, words in SECTIONS.items():
        if section:
            lines += ["", *_comment(_words(words)), f"[{section}]"]
        for definition in DEFINITIONS.values():
            if definition.section == section:
                lines += ["", *_describe(definition)]
    lines += ["", *_comment(_ACCESS), "#", *(f"# {line}" for line in EXAMPLE.splitlines())]
    return "\n".join(lines) + "\n"


def _describe(definition: Definition) -> Iterator[str]:
    reload = " [reload]" if definition.is_live else ""
    yield from _comment(_meaning(definition) + reload)
    yield f"#{definition.name} = {_default(definition)}"


def _default(definition: Definition) -> str:
    try:
        return definition.format.as_toml(definition.default_value())
    except InvalidParams:
        return '""'  # this user has none


def _meaning(definition: Definition) -> str:
    span = definition.format.span
    return f"{definition.meaning} ({span})" if span else definition.meaning


def _comment(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield "#"
        yield from textwrap.wrap(
            _words(paragraph),
            _WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
            break_on_hyphens=False,
        )


def _words(text: str) -> str:
    return " ".join(text.split())


def table() -> str:
    """The settings as a Markdown table."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for key, definition in DEFINITIONS.items():
        default = definition.default
        shown = (
            default.words
            if isinstance(default, HostDefault)
            else f"`{definition.format.as_toml(default)}`"
        )
        reload = " ↻" if definition.is_live else ""
        rows.append(f"| `{key}`{reload} | {shown} | {_meaning(definition)} |")
    return "\n".join(rows)
