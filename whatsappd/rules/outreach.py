"""The outreach guard: how a company may write to people it does not know.

WhatsApp restricts accounts that write to many strangers (the reach-out timelock, error 463), and
bans them. So first messages have a smaller budget of their own, and none goes out for a while
after a 463. Called by `sessions.pacing`.
"""

from __future__ import annotations

from typing import NamedTuple

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

#: The first pause after a 463; each further one within a day doubles it. WhatsApp does not say how
#: long its own restriction lasts.
FIRST_PAUSE_MS = HOUR_MS
LONGEST_PAUSE_MS = DAY_MS


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
