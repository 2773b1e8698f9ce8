"""Which account a company may use: the one that it was linked with first.

A company is bound to its account. If it is linked with another number, a person has to agree:
queued messages were written for the first number, and the people known to it may be strangers to
the other. Two companies may not share an account, because each would receive all messages of both.

The store calls this in the transaction that claims an account. So if two companies link the same
phone at once, one of them is refused.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import NamedTuple

from whatsappd.model.jid import parse_jid


class BoundAccount(NamedTuple):
    """An account by its two identities, without a device; None: not known."""

    jid: str | None  # of the phone number
    lid: str | None


def bound_account(jid: str | None, lid: str | None) -> BoundAccount:
    """The account that a device belongs to, from the device's identities.

    Raises:
        ValueError: one of them is not a JID.
    """
    return BoundAccount(
        None if jid is None else str(parse_jid(jid).account),
        None if lid is None else str(parse_jid(lid).account),
    )


class Standing(Enum):
    """What a company is to the account that it is linked with."""

    OURS = auto()
    OTHER = auto()  # another number than the company's own: a person must confirm it
    TAKEN = auto()  # it belongs to another company


class QueuedMessages(StrEnum):
    """What to do with queued messages when their company is linked with another number."""

    CANCEL = "cancel"
    SEND = "send"  # from the new number


def is_same(one: BoundAccount, other: BoundAccount) -> bool:
    """Whether they are one account. A LID stays when a person changes their number."""
    return (one.jid is not None and one.jid == other.jid) or (
        one.lid is not None and one.lid == other.lid
    )


def standing(
    bound: BoundAccount | None,
    linked: BoundAccount,
    *,
    claimed: bool,
    owner: str | None,
    has_waiting: bool,
) -> Standing:
    """Whose account `linked` is, as seen from a company that is linked with it.

    Args:
        bound: the account that the company was linked with last; None if it never was.
        claimed: whether `bound` is still the company's. `logout` gives it up.
        owner: another company whose account `linked` is; None if there is none.
        has_waiting: whether accepted messages still wait to be sent from `bound`.
    """
    if owner is not None:
        return Standing.TAKEN
    if bound is None or is_same(bound, linked):
        return Standing.OURS
    # After a logout another account is welcome, unless messages still wait for the old one.
    return Standing.OTHER if claimed or has_waiting else Standing.OURS
