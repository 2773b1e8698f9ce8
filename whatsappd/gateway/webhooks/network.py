"""Connections to addresses that were checked, for `post`.

The name is looked up once, and the connection goes to an address of that answer: what is checked is
what is connected to, however often the name changes its mind (DNS rebinding). TLS and the Host
header still use the name, because httpcore takes them from the URL.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import httpcore
import trio

from whatsappd.rules.addresses import is_public

#: Addresses of one name that are tried, one after the other.
MAX_ADDRESSES = 4


class AddressRefused(Exception):
    """The host's addresses are not on the Internet, and the webhook may not reach others."""


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """httpcore's way to the network, on trio, for one webhook."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
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
                # An address in numbers: nothing looks up anything any more.
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        assert failed is not None
        raise failed

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} is not known: {error}") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if self._allow_private:
            return addresses
        public = [address for address in addresses if is_public(address)]
        if not public:
            raise AddressRefused(
                f"{host} is at {', '.join(addresses[:MAX_ADDRESSES])}, which is not on the "
                "Internet: set allow_private if this receiver is meant to be yours"
            )
        return public

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("webhooks are not delivered to Unix sockets")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)
