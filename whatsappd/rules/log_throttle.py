"""How many lines a stranger can cause in the log: the first are written, the rest are counted.

Used wherever a caller's mistakes are logged: at the daemon's socket and at the gateway.

    lines = LogThrottle(REFUSAL_LINES, ALL_REFUSAL_LINES)
    ...
    if (left_out := lines.left_out("unauthorized", address, now=trio.current_time())) is not None:
        log.warning("unauthorized", address=address, left_out=left_out)
"""

from __future__ import annotations

from collections import OrderedDict

from whatsappd.rules.bounds import MAX_PACED, Pace, PaceBound


class LogThrottle:
    """Decides line by line.

    Args:
        each: for one kind of line by one holder, such as an address or `uid:1001`.
        all: for one kind by all holders together.
    """

    def __init__(self, each: PaceBound, all: PaceBound) -> None:
        self._each = Pace(each)
        self._all = Pace(all)
        self._left_out: OrderedDict[tuple[str, str], int] = OrderedDict()
        #: Lines that were left out since the start.
        self.total_left_out = 0

    def left_out(self, kind: str, holder: str, *, now: float) -> int | None:
        """Whether to write a line now.

        Args:
            kind: the line's event name.
            now: seconds, of any clock that never goes back.

        Returns:
            None: leave it out; it is counted. Else write it, and say in it that so many of this
            kind by this holder were left out since the last one.
        """
        key = (kind, holder)
        if self._each.allows(f"{kind} {holder}", now) and self._all.allows(kind, now):
            return self._left_out.pop(key, 0)
        self.total_left_out += 1
        self._left_out[key] = self._left_out.pop(key, 0) + 1
        if len(self._left_out) > MAX_PACED:
            self._left_out.popitem(last=False)
        return None


def is_milestone(count: int) -> bool:
    """Whether a count is 1, 10, 100, …: a log that tells only these stays short.

    For what others can repeat as often as they like.
    """
    while count >= 10 and count % 10 == 0:
        count //= 10
    return count == 1
