"""Trouble on demand: what WhatsApp and networks do now and then, armed by name.

Here are the faults that wait for something to happen (the next login, the next message, …); each
is armed with how often or how long, and handlers `take` it. Those that act at once on existing
connections (`drop`, `freeze`, …) are methods of the connection; `control` offers both by name.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Armed:
    """One armed fault. Ends after `left` times, or at `until` (monotonic seconds)."""

    phone: str | None  # None: whoever comes
    left: int | None = None
    until: float | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def spent(self) -> bool:
        return (self.left is not None and self.left <= 0) or (
            self.until is not None and time.monotonic() >= self.until
        )


class Faults:
    """The armed faults, by kind, the oldest first."""

    def __init__(self) -> None:
        self._armed: dict[str, list[Armed]] = {}

    def arm(
        self,
        kind: str,
        phone: str | None,
        *,
        count: int | None = None,
        seconds: float | None = None,
        **arguments: Any,
    ) -> None:
        """Arm a fault for `count` times, for `seconds`, or (with neither) until cleared."""
        until = None if seconds is None else time.monotonic() + seconds
        self._armed.setdefault(kind, []).append(Armed(phone, count, until, arguments))

    def take(self, kind: str, phone: str | None = None) -> dict[str, Any] | None:
        """Use a fault once: its arguments, or None if none of this kind is armed for `phone`."""
        armed = self._armed.get(kind)
        if not armed:
            return None
        for fault in list(armed):
            if fault.spent:
                armed.remove(fault)
            elif fault.phone is None or fault.phone == phone:
                if fault.left is not None:
                    fault.left -= 1
                return fault.arguments
        return None

    def clear(self) -> None:
        """Disarm everything."""
        self._armed.clear()

    def as_wire(self) -> dict[str, list[dict[str, Any]]]:
        """What is armed, for `stats`."""
        return {
            kind: [
                {"phone": fault.phone, "left": fault.left, **fault.arguments}
                for fault in armed
                if not fault.spent
            ]
            for kind, armed in self._armed.items()
            if any(not fault.spent for fault in armed)
        }
