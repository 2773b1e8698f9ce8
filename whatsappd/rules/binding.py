"""Which account a company may use: the one that it was linked with first.

A company is bound to its account. Linked with another number, it must not send what was written for
the first one, and who counts as known is another matter: a person is asked. And no two companies
may share an account: each would receive everything, and answer the other's answers.

Called by the store in the transaction that claims an account, so that of two
companies that link the same phone at once one is refused.
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
    """The account of a device, by the device's identities. Raises ValueError: one is no JID."""
    return BoundAccount(
        None if jid is None else str(parse_jid(jid).account),
        None if lid is None else str(parse_jid(lid).account),
    )


class Standing(Enum):
    """What a company is to the account that it is linked with."""

    OURS = auto()
    OTHER = auto()  # another number than the company's own: a person must say that it is meant
    TAKEN = auto()  # another company's


class QueuedMessages(StrEnum):
    """What becomes of messages that wait, when their company is linked with another number."""

    CANCEL = "cancel"
    SEND = "send"  # from the other number


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
    """What `linked` is to a company.

    Args:
        bound: the account that the company was linked with last; None: none.
        claimed: whether it still is the company's. `logout` gives it up.
        owner: another company that has `linked`.
        has_waiting: whether messages were accepted for `bound` and not sent.
    """
    if owner is not None:
        return Standing.TAKEN
    if bound is None or is_same(bound, linked):
        return Standing.OURS
    # Who logged out meant to leave that account. But what waits was written for it.
    return Standing.OTHER if claimed or has_waiting else Standing.OURS
