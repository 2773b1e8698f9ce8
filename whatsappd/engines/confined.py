"""Values about the confinement of workers: what is wanted, and what is in force."""

from __future__ import annotations

from typing import Any, NamedTuple

#: How workers are to be confined (`sessions.confinement`): by what the kernel offers; or not at all
#: if it lacks something essential; or not.
AUTO, REQUIRED, OFF = "auto", "required", "off"


class Confined(NamedTuple):
    """What restricts a process."""

    landlock: int = 0  # the version (ABI); 0: no files are refused
    seccomp: bool = False  # whether system calls are
    counted: bool = False  # whether those refused can be counted
    lacking: str | None = None  # what is not in force, and why

    @property
    def is_whole(self) -> bool:
        """Whether nothing essential is missing."""
        return self.landlock > 0 and self.seccomp

    def as_wire(self) -> dict[str, Any]:
        return self._asdict()
