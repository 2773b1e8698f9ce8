"""The outreach guard: how a company may write to people it does not know.

WhatsApp restricts accounts that write to many strangers (the reach-out timelock, error 463), and
bans them. So first messages have a smaller budget of their own, and none goes out for a while
after a 463. Called by `sessions.pacing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from whatsappd.errors import InvalidParams

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

#: The first pause after a 463; each further one within a day doubles it. WhatsApp does not say how
#: long its own restriction lasts.
FIRST_PAUSE_MS = HOUR_MS
LONGEST_PAUSE_MS = DAY_MS

#: The most a limit can be set to; a larger number is a slip of the finger.
MAX_LIMIT = 1_000_000


class SendLimits(NamedTuple):
    """A company's limits; 0 switches one off."""

    per_minute: int = 30
    per_phone_per_minute: int = 30
    cold_per_hour: int = 20
    cold_per_day: int = 100

    def changed(self, changes: Mapping[str, Any]) -> SendLimits:
        """These limits with `changes` (by field name; others are ignored) applied."""
        known = {name: value for name, value in changes.items() if name in self._fields}
        return self._replace(**known)

    def as_wire(self) -> dict[str, int]:
        return self._asdict()


def check_limit(name: str, value: int) -> int:
    """`value` if it can be a limit.

    Raises:
        InvalidParams: it is out of range; the message names `name`.
    """
    if 0 <= value <= MAX_LIMIT:
        return value
    raise InvalidParams(f"{name}: {value} is no limit: use 0 (off) to {MAX_LIMIT}", field=name)


class Pause(NamedTuple):
    """No first message goes out before `until_ms`. `strikes` are the 463s that led to it."""

    until_ms: int = 0
    strikes: int = 0

    def is_on(self, now_ms: int) -> bool:
        # One that ends later than any can was begun by a clock that was ahead.
        return now_ms < self.until_ms <= now_ms + LONGEST_PAUSE_MS

    def struck(self, now_ms: int) -> Pause:
        """The pause after WhatsApp answered 463 at `now_ms`."""
        # Strikes are forgiven a day after the last pause ended.
        strikes = self.strikes + 1 if now_ms < self.until_ms + DAY_MS else 1
        length = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (strikes - 1))
        return Pause(now_ms + length, strikes)
