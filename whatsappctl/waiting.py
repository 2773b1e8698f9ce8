"""Waiting for a session's state, for `Client.wait` and the commands that need a QR code."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from whatsappd.errors import TimedOut, WrongState
from whatsappd.model.event import SESSION_QR, SESSION_STATE

if TYPE_CHECKING:
    from whatsappctl.client import Client


def wait_for_state(
    client: Client, company: str, state: str, *, deadline: float | None
) -> dict[str, Any]:
    """See `Client.wait`."""
    until = None if deadline is None else monotonic() + deadline
    # Follow first and look then: a change in between is in the stream.
    with client.events(companies=[company], types=[SESSION_STATE]) as events:
        while True:
            status = client.status(company)
            if status["state"] == state:
                return status
            try:
                events.next(deadline=_left(until))
            except TimedOut as error:
                raise TimedOut(
                    f"{company} is not {state} after {deadline:g} s, "
                    f"but {status['state']}: {status['cause']}",
                    company=company,
                    state=status["state"],
                ) from error


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


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.001, until - monotonic())
