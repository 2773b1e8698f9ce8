"""Armed faults: trouble that waits for its moment (the next login, the next message, …).

`server.fault_control` arms them by name; the handlers `take` them where they strike. Faults that
strike at once (drop, freeze, …) are not kept: `fault_control` calls the connection.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ArmedFault:
    """One armed fault."""

    phone: str | None  # whom it strikes, by phone number (digits); None: everybody
    left: int | None = None  # how often it still strikes; None: without end
    until: float | None = None  # when it ends, in seconds of time.monotonic(); None: never
    arguments: dict[str, Any] = field(default_factory=dict)  # each kind has its own

    @property
    def spent(self) -> bool:
        """Whether it will not strike any more."""
        return (self.left is not None and self.left <= 0) or (
            self.until is not None and time.monotonic() >= self.until
        )


class ArmedFaults:
    """The faults that are armed, by their kinds; of one kind, the oldest strikes first."""

    def __init__(self) -> None:
        self._armed: dict[str, list[ArmedFault]] = {}

    def arm(
        self,
        kind: str,
        phone: str | None,
        *,
        count: int | None = None,
        seconds: float | None = None,
        **arguments: Any,
    ) -> None:
        """Arm a fault: for `count` times, for `seconds`, or with neither until `clear`."""
        until = None if seconds is None else time.monotonic() + seconds
        self._armed.setdefault(kind, []).append(ArmedFault(phone, count, until, arguments))

    def take(self, kind: str, phone: str | None = None) -> dict[str, Any] | None:
        """Let a fault of this kind strike `phone`. Returns its arguments; None if none is armed."""
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
        """What is armed, as `sandbox.stats` shows it: by kind, with phone, left and arguments."""
        return {
            kind: [
                {"phone": fault.phone, "left": fault.left, **fault.arguments}
                for fault in armed
                if not fault.spent
            ]
            for kind, armed in self._armed.items()
            if any(not fault.spent for fault in armed)
        }
