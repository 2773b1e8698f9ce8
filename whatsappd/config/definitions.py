"""The definitions of `settings` as a table, for those who go through all of them."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple, get_type_hints

from whatsappd.config.settings import (
    AlertSettings,
    HostDefault,
    LimitSettings,
    OutreachSettings,
    QueueSettings,
    RetentionSettings,
    Setting,
    Settings,
    SupervisionSettings,
)

PREFIX = "WHATSAPPD_"

#: Sections of the file, in the order of the sample. "" holds what stands before the first.
SECTIONS: dict[str, Any] = {
    "": Settings,
    "limits": LimitSettings,
    "outreach": OutreachSettings,
    "queue": QueueSettings,
    "retention": RetentionSettings,
    "sessions": SupervisionSettings,
    "alerts": AlertSettings,
}
#: The list of tables that `config.access` reads.
ACCESS = "access"


class Definition(NamedTuple):
    """One setting."""

    key: str  # as it is written: "log_level", "limits.redis_url"
    setting: Setting
    default: Any  # a value, or a HostDefault

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
        if isinstance(self.default, HostDefault):
            return self.default.value(is_sandboxed)
        return self.default

    def of(self, settings: Settings) -> Any:
        """This setting's value in `settings`."""
        holder = getattr(settings, self.section) if self.section else settings
        return getattr(holder, self.name)


def _collect() -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    for section, holder in SECTIONS.items():
        for name, hint in get_type_hints(holder, include_extras=True).items():
            metadata = getattr(hint, "__metadata__", ())
            if not metadata:
                continue  # a section, or what only the command line says
            key = f"{section}.{name}" if section else name
            default = holder._field_defaults.get(name, metadata[-1])
            found[key] = Definition(key, metadata[0], default)
    return found


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
