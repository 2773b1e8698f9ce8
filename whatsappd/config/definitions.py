"""Every setting that the parts declare, in one table: for those who go through all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from msgspec import NODEFAULT, Meta, Struct, structs

from whatsappd.config.settings import Settings
from whatsappd.config.value_formats import ValueFormat, format_of
from whatsappd.setting import HostDefault, declared_by

PREFIX = "WHATSAPPD_"

#: The file's sections and what they are about, in the order of the sample. "": before the first.
SECTIONS = {
    "": "",
    "limits": """
        How many messages a company may send. What is over a limit waits in the queue for its turn.

        `session.configure` gives a company limits of its own, which come before these.""",
    "outreach": """
        Messages to people whom a company never wrote to or heard from.

        WhatsApp bans accounts that write to many strangers, so these have a smaller budget.""",
    "queue": "Messages that wait to be sent.",
    "retention": "How much history is kept in the state directory.",
    "sessions": """
        How sessions are started, watched and restarted. The defaults suit nearly everybody.""",
    "alerts": "When an `alert` event is raised. 0 switches one off.",
}
#: The list of tables that `config.access` reads.
ACCESS = "access"


class Definition(NamedTuple):
    """One setting: what its part declares, and where it is in `Settings`."""

    key: str  # as it is written: "log_level", "limits.redis_url"
    meaning: str
    format: ValueFormat
    default: Any  # a value, or a HostDefault
    is_live: bool  # a reload applies it
    part: str
    field: str

    @property
    def section(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.key.upper().replace(".", "_")

    def default_value(self, *, is_sandboxed: bool = False) -> Any:
        """Raises InvalidParams if this user has none."""
        if isinstance(self.default, HostDefault):
            return self.default.value(is_sandboxed)
        return self.default

    def of(self, settings: Settings) -> Any:
        """This setting's value in `settings`."""
        return getattr(getattr(settings, self.part), self.field)

    def written(self, settings: Settings) -> str:
        """The same as somebody would write it in the file. Secrets are masked."""
        return self.format.as_toml(self.of(settings))

    def replaced(self, settings: Settings, value: Any) -> Settings:
        """`settings` with this value for this setting."""
        part = structs.replace(getattr(settings, self.part), **{self.field: value})
        return structs.replace(settings, **{self.part: part})


def parts() -> dict[str, type[Struct]]:
    """The structures that declare settings, by their names in `Settings`."""
    return {
        field.name: field.type
        for field in structs.fields(Settings)
        if isinstance(field.type, type) and issubclass(field.type, Struct)
    }


def _declared(part: str, structure: type[Struct]) -> Iterator[Definition]:
    for field in structs.fields(structure):
        value_type, *annotations = get_args(field.type) or [field.type]
        for meta in annotations:
            declared = declared_by(meta)
            if declared is None:
                continue
            assert isinstance(meta, Meta)
            default = declared.host_default if field.default is NODEFAULT else field.default
            yield Definition(
                declared.key,
                meta.description or "",
                format_of(value_type, meta, declared.written_as),
                default,
                declared.is_live,
                part,
                field.name,
            )


def _collect() -> dict[str, Definition]:
    found = [each for part, structure in parts().items() for each in _declared(part, structure)]
    order = list(SECTIONS)
    found.sort(key=lambda definition: order.index(definition.section))
    by_key = {definition.key: definition for definition in found}
    assert len(by_key) == len(found), "two settings of one name"
    return by_key


#: All settings by key, in the order of the sample.
DEFINITIONS = _collect()


def nearest(key: str) -> str | None:
    """The setting that somebody who wrote `key` may have meant."""
    by_name: dict[str, str] = {definition.name: key for key, definition in DEFINITIONS.items()}
    last = key.rpartition(".")[2]
    if last in by_name:
        return by_name[last]  # in the wrong section
    close: list[str] = difflib.get_close_matches(key, DEFINITIONS, n=1)
    if close:
        return close[0]
    close = difflib.get_close_matches(last, by_name, n=1)
    return by_name[close[0]] if close else None


def nearest_section(name: str) -> str | None:
    """The section that somebody who wrote `[name]` may have meant."""
    close = difflib.get_close_matches(name, [*filter(None, SECTIONS), ACCESS], n=1)
    return close[0] if close else None
