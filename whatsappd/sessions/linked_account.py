"""What a session knows about the account that its workers are linked with: whose it is, and whether
the device is being unlinked because of that.

`session` acts on it; the rule is `rules.binding`. Workers are told apart by their generation.
"""

from __future__ import annotations

import trio


class LinkedAccount:
    """One session's."""

    def __init__(self) -> None:
        self.paired = -1  # the generation of the worker that linked the account
        self.paired_jid: str | None = None  # of the device that it linked
        self.admitted = -1  # of the worker whose account was found to be the company's
        self.foreign = -1  # of the worker whose account is not: what it brings is not taken
        self.is_unlinking = False  # the worker is there only to unlink the device
        self.unlink_now = trio.Event()  # tells the worker's task to do it
        self.unlink_words: str | None = None  # why it is unlinked, if that is our doing
        self.drops_spool = False  # what a foreign account's worker kept goes with it
