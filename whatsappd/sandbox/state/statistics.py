"""Counters of what happened in the sandbox; `sandbox.stats` answers them, tests assert on them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any

#: Message ids that are counted one by one: the latest ones.
MAX_MESSAGES = 20_000
#: Kinds of unknown requests that are told apart.
_MAX_UNKNOWN = 100
#: Characters that are kept of what a client named: all figures must fit into one RPC answer.
_MAX_WORDS = 200


@dataclass
class MessageCounts:
    """What the server did with one message id of one sender."""

    sender: str  # the device's phone-number JID
    to: str
    accepted: int = 0  # 1, or 0 if it was refused each time
    resent: int = 0  # how often the same frame came again, and was acknowledged and not delivered
    forwarded: int = 0  # devices that it was sent to or queued for
    acks: int = 0  # acknowledgements that were sent
    acks_withheld: int = 0  # acknowledgements that the fault `lose_acks` kept back
    refused: int = 0  # how often it was answered with an error
    receipts: dict[str, int] = field(default_factory=dict)  # by type; "" means delivered


@dataclass
class TrafficCounters:
    """Counters since the sandbox started. The fields' names are those of the RPC's answer."""

    dials: int = 0  # TCP connections
    dials_refused: int = 0  # of these, by the fault `refuse_dials`
    logins: int = 0
    login_failures: int = 0
    pairings: int = 0
    accepted: int = 0  # messages, as in MessageCounts
    resent: int = 0
    forwarded: int = 0
    queued_offline: int = 0  # stanzas for a device that was not connected
    redelivered: int = 0  # stanzas that had waited when their device came
    retries: int = 0  # messages that were sent again because a device could not read them
    receipts: int = 0
    refused: int = 0  # messages, by the fault `nack_sends`
    acks_withheld: int = 0
    pings: int = 0
    pings_muted: int = 0
    violations: int = 0  # connections that ended because the client broke the protocol
    last_violation: str | None = None
    defects: int = 0  # connections that ended because of a defect of the sandbox
    unknown: Counter[str] = field(default_factory=Counter)  # requests that it does not know
    #: By the sender's device (phone-number JID) and message id.
    messages: OrderedDict[tuple[str, str], MessageCounts] = field(default_factory=OrderedDict)

    def of_message(self, sender: str, message_id: str, to: str) -> MessageCounts:
        """The counts of a message, made if it is new. `sender`: a device's phone-number JID."""
        key = (sender, message_id)
        found = self.messages.get(key)
        if found is None:
            found = self.messages[key] = MessageCounts(sender, to)
            if len(self.messages) > MAX_MESSAGES:
                self.messages.popitem(last=False)
        return found

    def note_violation(self, words: str) -> None:
        """Count a violation of the protocol, and keep its words."""
        self.violations += 1
        self.last_violation = words[:_MAX_WORDS]

    def note_unknown(self, what: str) -> None:
        """Count a request or stanza that the sandbox does not know."""
        what = what[:_MAX_WORDS]
        if what in self.unknown or len(self.unknown) < _MAX_UNKNOWN:
            self.unknown[what] += 1

    def as_wire(self, *, messages: bool) -> dict[str, Any]:
        """The counters as plain values; those of single messages only if `messages`."""
        values = {
            name: value for name, value in vars(self).items() if name not in ("unknown", "messages")
        }
        values["unknown"] = dict(self.unknown)
        if messages:
            values["messages"] = [
                {"id": message_id, **asdict(counts)}
                for (_, message_id), counts in self.messages.items()
            ]
        return values
