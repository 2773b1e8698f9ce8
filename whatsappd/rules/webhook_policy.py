"""Which webhook URLs are allowed, when a delivery is tried again, when a webhook pauses or ends.

The daemon checks URLs here when somebody configures them; the gateway's deliverer decides by
`Policy`. Times and chance are arguments.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

import idna

from whatsappd.errors import InvalidParams
from whatsappd.model.event import MAX_EVENT_BYTES, SESSION_QR
from whatsappd.model.webhook import StoredWebhook, WebhookConfig
from whatsappd.rules.backoff import full_jitter
from whatsappd.rules.bounds import DEAD_LETTER_BYTES, DEAD_LETTERS
from whatsappd.rules.public_addresses import is_public

MAX_URL = 2000
MAX_DESCRIPTION = 200
#: Milliseconds that a receiver may ask us to wait (`Retry-After`). It may be busy, and may not turn
#: its webhook off by the way.
MAX_RETRY_AFTER_MS = 3_600_000

#: Seconds for which a gateway has the turn to deliver. It confirms it more often; one that stands
#: still for longer has lost it as soon as another gateway asks.
TURN_S = 12.0


class Policy(NamedTuple):
    """How the deliverer treats receivers. Times in milliseconds.

    Args:
        timeout_ms: for one delivery, from looking up the name to the answer.
        attempts: failures of one event before it may become a dead letter. It does only if the
            receiver then accepts a `webhook.ping` and refuses the event once more: then the event
            is the trouble. Else the receiver is, and its events wait for it.
        base_ms, cap_ms: the waits between attempts double from one to the other, with full jitter.
        probe_ms: the most that the oldest event waits while the receiver does not answer at all,
            or says that it is overloaded: so that its return is noticed soon.
        pause_after_ms: after so long without any success the webhook counts as paused: an alert
            is raised, and only its oldest event is tried until the receiver is back.
    """

    timeout_ms: int = 15_000
    attempts: int = 8
    base_ms: int = 1_000
    cap_ms: int = 300_000
    probe_ms: int = 15_000
    pause_after_ms: int = 900_000

    def wait_ms(self, failures: int, chance: float, *, is_probe: bool = False) -> int:
        """How long to wait after so many failures (from 1) of one event."""
        cap_ms = min(self.cap_ms, self.probe_ms) if is_probe else self.cap_ms
        return full_jitter(failures - 1, base_ms=self.base_ms, cap_ms=cap_ms, chance=chance)

    def is_hopeless(self, failures: int) -> bool:
        """Whether it is time to ask which of the two is ill, the event or the receiver."""
        return failures >= self.attempts

    def should_pause(self, failing_for_s: float) -> bool:
        """Whether a receiver that has failed for so many seconds is tried now and then only."""
        return failing_for_s * 1000 >= self.pause_after_ms


#: What a receiver answers when it, and not the event, is in trouble: it is overloaded or away.
OVERLOADED = frozenset({429, 502, 503, 504})
#: What a receiver answers that wants no more events. The webhook is disabled.
GONE = 410


def retry_after_ms(value: str, now_ms: int) -> int | None:
    """How long a `Retry-After` header asks us to wait (RFC 9110, section 10.2.3), in milliseconds,
    at most MAX_RETRY_AFTER_MS; None if it cannot be read.

    Args:
        value: seconds, or a date.
    """
    value = value.strip()
    if re.fullmatch("[0-9]{1,10}", value):
        return min(int(value) * 1000, MAX_RETRY_AFTER_MS)
    try:
        until_ms = parsedate_to_datetime(value).timestamp() * 1000
    except (ValueError, OverflowError, TypeError):
        return None
    return max(0, min(round(until_ms) - now_ms, MAX_RETRY_AFTER_MS))


class WebhookTarget(NamedTuple):
    """Where a webhook's URL leads, read once: what is checked here is what is connected to.

    Args:
        scheme: `https` or `http`.
        host: a name in lower case (international ones as `xn--…`), or an IP address, IPv6 without
            brackets.
        target: path and query as they were written; what stands in the request line.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def host_header(self) -> str:
        """The `Host` header (RFC 9110, section 7.2): without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """The receiver: webhooks of the same origin lead to the same server."""
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_header}{self.target}"


_PORTS = {"https": 443, "http": 80}
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#\\]*)(?P<target>.*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]*))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def parse_url(url: str) -> WebhookTarget:
    """Read a webhook's URL. The only place where one is read.

    Raises:
        InvalidParams: it is no absolute http(s) URL that we deliver to; the message says why.
    """
    if len(url) > MAX_URL:
        raise _wrong(f"use at most {MAX_URL} characters")
    found = _URL.fullmatch(url)
    if found is None or not found["authority"]:
        raise _wrong("write https://HOST/PATH")
    if "@" in found["authority"]:
        raise _wrong("no user or password in it: receivers check the signature instead")
    parts = _AUTHORITY.fullmatch(found["authority"])
    if parts is None:
        raise _wrong("write the host as a name, as 203.0.113.7 or as [2001:db8::7], then :PORT")
    scheme = found["scheme"].lower()
    port = int((parts["port"] or "")[:6] or _PORTS[scheme])
    if not 1 <= port <= 65535:
        raise _wrong("the port is a number from 1 to 65535")
    host = _host_v6(parts["v6"]) if parts["v6"] is not None else _host(parts["name"])
    return WebhookTarget(scheme, host, port, _target(found["target"]))


def _host_v6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except AddressValueError as error:
        raise _wrong(f"[{text:.60}] is no IPv6 address") from error
    if address.scope_id is not None:
        raise _wrong("an IPv6 address with a zone (%…) leads to an interface of this host only")
    return str(address)


def _host(name: str) -> str:
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError as error:
            raise _wrong(f"{name[:60]!r} is no international host name: {error}") from error
    name = name.lower()
    last = name.removesuffix(".").rpartition(".")[2]
    if last.isdecimal() or last.startswith("0x"):
        # The C library also takes 127.1, 2130706433 and 0x7f.1 for addresses. One spelling is
        # enough, and then everybody reads the same.
        try:
            return str(IPv4Address(name))
        except AddressValueError as error:
            raise _wrong("write an IPv4 address as four numbers: 203.0.113.7") from error
    if len(name) > 253 or not all(_LABEL.fullmatch(e) for e in name.removesuffix(".").split(".")):
        raise _wrong(f"{name[:60]!r} is no host name")
    return name


def _target(text: str) -> str:
    if "#" in text:
        raise _wrong("no #fragment: it would not be sent")
    for character in text:
        if not "!" <= character <= "~" or character == "\\":
            written = "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))
            raise _wrong(f"write {character!r} in the path or query as {written}")
    return text if text.startswith("/") else f"/{text}"


def host_of(url: str) -> str:
    """The host of a webhook's URL, to name the receiver by: its path may be a secret."""
    try:
        return parse_url(url).host
    except InvalidParams:  # an older version took it
        return "an unreadable address"


def validate_url(url: str, *, allow_private: bool) -> str:
    """`url` as it is kept, if a webhook may have it: international host names are in ASCII.

    Raises:
        InvalidParams: `parse_url` refuses it; or it is not encrypted, or names an address
            that is not on the Internet, and `allow_private` is not set. Names are looked up at
            each delivery, and their addresses checked there.
    """
    target = parse_url(url)
    if not allow_private:
        if target.scheme != "https":
            raise _wrong(
                "https:// only, unless allow_private is set: messages would travel plainly"
            )
        if _is_address(target.host) and not is_public(target.host):
            raise _wrong(
                f"{target.host} is not on the Internet; "
                "set allow_private if it is meant to be yours"
            )
    return url if url.isascii() else str(target)


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdecimal()


def _wrong(reason: str) -> InvalidParams:
    return InvalidParams(f"url: {reason}", field="url")


def is_full(webhook: StoredWebhook) -> bool:
    """Whether there may be no room for one more dead letter, so that the webhook waits."""
    return (
        webhook.dead_letters >= DEAD_LETTERS.each
        or webhook.dead_bytes + MAX_EVENT_BYTES > DEAD_LETTER_BYTES.each
    )


def without_codes(wanted: WebhookConfig) -> WebhookConfig:
    """The same webhook, told no QR codes; disabled if it was to be told nothing else.

    For a webhook whose key was revoked: only those may see codes who may link.
    """
    if wanted.types is None or SESSION_QR not in wanted.types:
        return wanted
    left = tuple(each for each in wanted.types if each != SESSION_QR)
    return wanted._replace(types=left or wanted.types, enabled=wanted.enabled and bool(left))
