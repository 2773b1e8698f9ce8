"""Waiting for a session's QR code, or for a message to be sent, for the commands that wait."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from whatsappd.errors import TimedOut, WrongState
from whatsappd.model.event import OUTBOX_STATE, SESSION_QR

if TYPE_CHECKING:
    from whatsappctl.client import Client

#: Seconds for a message that became uncertain: most of those are looked up and settled at once.
UNCERTAIN_FOR = 10.0

_SENT = ("sent", "delivered", "read", "played")
#: By what `send --wait` waits for.
_REACHED = {"sent": _SENT, "delivered": _SENT[1:]}
_ENDED = ("failed", "expired", "cancelled")


def wait_for_qr(client: Client, company: str, *, deadline: float) -> dict[str, Any]:
    """The QR code that a session shows, or will show within `deadline` seconds.

    Raises:
        WrongState: it shows none; the message says how the session stands.
    """
    until = monotonic() + deadline
    with client.events(companies=[company], types=[SESSION_QR]) as events:
        while True:
            try:
                return client.qr(company)
            except WrongState as error:
                try:
                    events.next(deadline=_left(until))
                except TimedOut:
                    raise error from None


def wait_for_message(
    client: Client,
    row: dict[str, Any],
    goal: str,
    *,
    deadline: float | None,
    on_uncertain: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """The row when the message is `sent` or `delivered` (the `goal`), or when it never will be.

    It follows the log rather than call `message.wait`, which has no word for `uncertain`: then
    `on_uncertain` is called, and unless that is settled within UNCERTAIN_FOR, the row is returned.

    Raises:
        TimedOut: it was not within `deadline` seconds; the message says how it stands.
        Unreachable, Stopping: the daemon went away. The message is safe with it.
    """
    until = None if deadline is None else monotonic() + deadline
    uncertain_until: float | None = None
    # Follow first and look then: a change in between is in the stream.
    with client.events(companies=[row["company"]], types=[OUTBOX_STATE]) as events:
        row = client.message(row["id"])
        while row["state"] not in (*_REACHED[goal], *_ENDED):
            if row["state"] != "uncertain":
                uncertain_until = None
            elif uncertain_until is None:
                uncertain_until = monotonic() + UNCERTAIN_FOR
                on_uncertain(row)
            ends = [end for end in (until, uncertain_until) if end is not None]
            try:
                event = events.next(deadline=_left(min(ends, default=None)))
            except TimedOut as error:
                if until is None or monotonic() < until:
                    return row
                raise TimedOut(
                    f"message {row['id']} is not {goal} after {deadline:g} s, "
                    f"but {row['state']}; it goes on",
                    id=row["id"],
                    state=row["state"],
                ) from error
            if event.data["id"] == row["id"]:
                row = {**row, **{name: event.data[name] for name in row if name in event.data}}
    return row


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.001, until - monotonic())
