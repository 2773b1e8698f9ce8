"""Which of a company's messages go first: answers to people who wrote lately, then the rest.

A person who has just asked something waits for the answer; a batch of a hundred has time. Both are
within the same limits. Answers may take most of these, but never all: after `REPLIES_IN_A_ROW` of
them, one of the others goes, so that a busy chat stops no batch. Order within a chat is kept.
"""

from __future__ import annotations

#: Who wrote within this time waits for an answer, in milliseconds: a day.
REPLY_WINDOW_MS = 24 * 3600 * 1000
#: Of the messages that may go, at least every fifth is none of the answers, while there are others.
REPLIES_IN_A_ROW = 4


def is_answer(wrote_ms: int, now_ms: int) -> bool:
    """Whether a message to somebody who wrote at `wrote_ms` is an answer (epoch milliseconds).

    A time in the future was written by a clock that was ahead; it counts for a day at the most.
    """
    return wrote_ms > 0 and abs(now_ms - wrote_ms) < REPLY_WINDOW_MS
