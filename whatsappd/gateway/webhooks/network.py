"""Opens connections to webhooks' receivers, and refuses addresses that are not on the Internet.

A receiver's name is looked up once for each connection. The addresses found are checked, and the
connection goes to one of them: a name that is answered differently a moment later (DNS rebinding)
leads nowhere else. TLS and the Host header still use the name. Used by `post`.

An address of this host counts as private, also if it is a public one.

On failure: `AddressRefused` if no address is allowed, else httpcore's own errors.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

import httpcore
import trio

from whatsappd.rules.public_addresses import is_public

#: Addresses of one name that are tried, one after the other.
MAX_ADDRESSES = 4
#: Look-ups of one webhook at a time. One that hangs holds a thread until the resolver gives up,
#: half a minute or more, and must take neither other webhooks' threads nor trio's own.
LOOKUPS = 1


class AddressRefused(Exception):
    """The host's addresses are not on the Internet, and the webhook may not reach others."""


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens the connections of httpcore, on trio, for one webhook.

    Args:
        allow_private: connect to addresses that are not on the Internet, too.
        is_own, resolve: for tests; by default `is_own_address` and `addresses_of`.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        is_own: Callable[[str], bool] | None = None,
        resolve: Callable[[str, int], list[str]] | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._is_own = is_own or is_own_address
        self._resolve = resolve or addresses_of
        self._lookups = trio.CapacityLimiter(LOOKUPS)
        self._inner = httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """As httpcore says.

        Raises:
            AddressRefused: there is no address that we may connect to.
            httpcore.ConnectError, httpcore.ConnectTimeout: none of them answers.
        """
        addresses = await self._addresses(host, port)
        failed: Exception | None = None
        for address in addresses[:MAX_ADDRESSES]:
            try:
                # An address in numbers, so that no name is looked up a second time.
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        assert failed is not None
        raise failed

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            # When the delivery's time is over, the thread is left behind. It counts as one of
            # LOOKUPS until it returns.
            addresses = await trio.to_thread.run_sync(
                self._resolve, host, port, limiter=self._lookups, abandon_on_cancel=True
            )
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} is not known: {error}") from error
        if self._allow_private:
            return addresses
        public = [each for each in addresses if is_public(each) and not self._is_own(each)]
        if not public:
            raise AddressRefused(
                f"{host} is at {', '.join(addresses[:MAX_ADDRESSES])}, which is not on the "
                "Internet, or is this host: set allow_private if this receiver is meant to be yours"
            )
        return public

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("webhooks are not delivered to Unix sockets")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def addresses_of(host: str, port: int) -> list[str]:
    """The IP addresses of a name, by the system's resolver. Blocks; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def is_own_address(address: str) -> bool:
    """Whether an IP address is one of this host's.

    Asks the kernel for a route: to an address of its own it takes that address as the source, too.
    No packet is sent. An address that a router translates to this host's (NAT) is not noticed.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            source = str(probe.getsockname()[0])
    except OSError:
        return False  # there is no way to it: the connection will say so
    return ip_address(source.partition("%")[0]) == ip_address(address)
