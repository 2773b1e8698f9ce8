"""What happened in the sandbox, counted: what `sandbox.stats` answers, and tests assert on."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any

#: Messages whose fate is remembered one by one, the latest ones.
MAX_MESSAGES = 20_000
#: Kinds of unknown requests that are remembered.
_MAX_UNKNOWN = 100
#: Characters of a client's own words that are remembered: all of the figures fit into one answer.
_MAX_WORDS = 200


@dataclass
class Fate:
    """What became of one message id of one sender at the server."""

    sender: str  # the device's phone-number JID
    to: str
    accepted: int = 0  # times taken as new: 1, or 0 if every attempt was refused
    resent: int = 0  # times the same frame came again and was only acknowledged
    forwarded: int = 0  # devices it was handed or queued for
    acks: int = 0  # acknowledgements that were sent
    acks_withheld: int = 0
    refused: int = 0  # times answered with an error
    receipts: dict[str, int] = field(default_factory=dict)  # by type; "" is plain delivery


@dataclass
class Statistics:
    """Counters since the sandbox started."""

    dials: int = 0
    dials_refused: int = 0
    logins: int = 0
    login_failures: int = 0
    pairings: int = 0
    accepted: int = 0
    resent: int = 0
    forwarded: int = 0
    queued_offline: int = 0
    redelivered: int = 0
    retries: int = 0
    receipts: int = 0
    refused: int = 0
    acks_withheld: int = 0
    pings: int = 0
    pings_muted: int = 0
    violations: int = 0
    last_violation: str | None = None
    defects: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    messages: OrderedDict[tuple[str, str], Fate] = field(default_factory=OrderedDict)

    def fate(self, sender: str, message_id: str, to: str) -> Fate:
        """The record of a message, made if it is new."""
        key = (sender, message_id)
        found = self.messages.get(key)
        if found is None:
            found = self.messages[key] = Fate(sender, to)
            if len(self.messages) > MAX_MESSAGES:
                self.messages.popitem(last=False)
        return found

    def note_violation(self, words: str) -> None:
        """Count a client that broke the protocol, and keep how the last one did."""
        self.violations += 1
        self.last_violation = words[:_MAX_WORDS]

    def note_unknown(self, what: str) -> None:
        """Count a request or stanza the sandbox does not know."""
        what = what[:_MAX_WORDS]
        if what in self.unknown or len(self.unknown) < _MAX_UNKNOWN:
            self.unknown[what] += 1

    def as_wire(self, *, messages: bool) -> dict[str, Any]:
        """Plain values; the fates of single messages only if asked for."""
        values = {
            name: value for name, value in vars(self).items() if name not in ("unknown", "messages")
        }
        values["unknown"] = dict(self.unknown)
        if messages:
            values["messages"] = [
                {"id": message_id, **asdict(fate)}
                for (_, message_id), fate in self.messages.items()
            ]
        return values
