"""When first messages to strangers pause, and for how long.

WhatsApp restricts accounts that write to many strangers (the reach-out timelock, error 463), and
bans them. After a 463, a company sends no first messages for an hour; each further 463 doubles the
pause, up to a day. `sessions.pacing` asks here, and counts first messages (`limits.settings`).
"""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.model.durations import DAY_MS, HOUR_MS

#: The first pause after a 463; each further one within a day doubles it. WhatsApp does not say how
#: long its own restriction lasts.
FIRST_PAUSE_MS = HOUR_MS
LONGEST_PAUSE_MS = DAY_MS


class OutreachPause(NamedTuple):
    """No first message is sent before `until_ms`. `strikes` counts the 463s that led to it."""

    until_ms: int = 0
    strikes: int = 0

    def is_on(self, now_ms: int) -> bool:
        # One that ends later than any can was begun by a clock that was ahead.
        return now_ms < self.until_ms <= now_ms + LONGEST_PAUSE_MS

    def struck(self, now_ms: int) -> OutreachPause:
        """The pause after WhatsApp answered 463 at `now_ms`."""
        # Strikes are forgiven a day after the last pause ended.
        strikes = self.strikes + 1 if now_ms < self.until_ms + DAY_MS else 1
        length = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (strikes - 1))
        return OutreachPause(now_ms + length, strikes)
