"""Which of a company's queued messages are sent first: replies to people who wrote lately.

A person who has just asked something waits for the answer; a batch of a hundred has time. Both
count against the same limits. After `REPLIES_IN_A_ROW` replies, one other message is sent, so that
a busy chat does not stop a batch. The order within a chat is kept.
"""

from __future__ import annotations

#: A message to somebody who wrote within this time (milliseconds) is a reply: a day.
REPLY_WINDOW_MS = 24 * 3600 * 1000
#: While others are queued too, at most so many replies are sent before one of them.
REPLIES_IN_A_ROW = 4


def is_reply_to(wrote_ms: int, now_ms: int) -> bool:
    """Whether a message sent now to somebody who wrote at `wrote_ms` is a reply.

    Times are epoch milliseconds. A time in the future comes from a clock that was ahead; it counts
    for a day at most.
    """
    return wrote_ms > 0 and abs(now_ms - wrote_ms) < REPLY_WINDOW_MS
