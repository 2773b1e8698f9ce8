"""How webhooks behave: which URLs there may be, when to try again, when to pause, when to give up.

The daemon checks URLs here when somebody configures them; the gateway's deliverer decides by
`Policy`. Times and chance are arguments.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from whatsappd.errors import InvalidParams
from whatsappd.rules.addresses import is_public
from whatsappd.rules.backoff import full_jitter

MAX_URL = 2000


class WebhookAlert(StrEnum):
    """The rules by which webhooks ring; beside those of `rules.alerts`, in the same events."""

    FAILING = "webhook_failing"  # paused; cleared when it goes on
    EVENTS_GONE = "webhook_events_gone"  # retention was faster; told once, as nothing mends it


class Policy(NamedTuple):
    """How the deliverer treats receivers. Times in milliseconds.

    Args:
        timeout_ms: for one delivery, from looking up the name to the answer.
        attempts: failures of one event before it may become a dead letter. It does only if the
            receiver then accepts a `webhook.ping` and refuses the event once more: then the event
            is the trouble. Else the receiver is, and its events wait for it.
        base_ms, cap_ms: the waits between attempts double from one to the other, with full jitter.
        pause_after_ms: after so long without any success the webhook counts as paused: an alert
            is raised, and only its oldest event is tried until the receiver is back.
    """

    timeout_ms: int = 10_000
    attempts: int = 8
    base_ms: int = 1_000
    cap_ms: int = 300_000
    pause_after_ms: int = 900_000

    def wait_ms(self, failures: int, chance: float) -> int:
        """How long to wait after so many failures (from 1) of one event."""
        return full_jitter(failures - 1, base_ms=self.base_ms, cap_ms=self.cap_ms, chance=chance)

    def is_hopeless(self, failures: int) -> bool:
        """Whether it is time to ask which of the two is ill, the event or the receiver."""
        return failures >= self.attempts

    def should_pause(self, failing_since_ms: int | None, now_ms: int) -> bool:
        return failing_since_ms is not None and now_ms - failing_since_ms >= self.pause_after_ms


def validate_url(url: str, *, allow_private: bool) -> str:
    """`url` if a webhook may have it.

    Raises:
        InvalidParams: it is no absolute http(s) URL; or it is not encrypted, or names an address
            that is not on the Internet, and `allow_private` is not set. Names are looked up at
            each delivery, and their addresses checked there.
    """
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise _wrong(f"use at most {MAX_URL} printable ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _wrong(f"it cannot be read: {error}") from error
    if parts.scheme not in ("https", "http") or not host or port == 0:
        raise _wrong("write https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise _wrong("no user or password in it: receivers check the signature instead")
    if parts.fragment or url.endswith("#"):
        raise _wrong("no #fragment: it would not be sent")
    if not allow_private:
        if parts.scheme != "https":
            raise _wrong(
                "https:// only, unless allow_private is set: messages would travel plainly"
            )
        if _is_literal(host) and not is_public(host):
            raise _wrong(
                f"{host} is not on the Internet; set allow_private if it is meant to be yours"
            )
    return url


def _is_literal(host: str) -> bool:
    # Also what only the C library takes for an address: 127.1, 2130706433, 0x7f.1.
    return ":" in host or host.rpartition(".")[2].isdecimal() or host.lower().startswith("0x")


def _wrong(reason: str) -> InvalidParams:
    return InvalidParams(f"url: {reason}", field="url")
