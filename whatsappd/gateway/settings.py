"""Where the gateway listens, and the refusal to do that carelessly. Made by `whatsappd gateway`."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import NamedTuple

from whatsappd.errors import InvalidParams
from whatsappd.gateway.tls import Certificates

DEFAULT_BIND = "127.0.0.1:8080"


class Bind(NamedTuple):
    """A TCP address, or (with `path`) a Unix socket."""

    host: str
    port: int
    path: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether only processes of this host can connect."""
        return self.path is not None or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind(text: str) -> Bind:
    """`127.0.0.1:8080`, `[::1]:8080`, `localhost:8080` or `unix:/run/gateway.sock`.

    Raises:
        InvalidParams: it is none of these.
    """
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if path.is_absolute():
            return Bind("", 0, path)
    else:
        host, _, port = text.rpartition(":")
        host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            if port.isascii() and port.isdecimal() and int(port) <= 65535:
                return Bind(host, int(port))
    raise InvalidParams(
        f"bind: {text!r:.80} is no address: write 127.0.0.1:8080, [::1]:8080 or unix:/PATH",
        field="bind",
    )


class GatewaySettings(NamedTuple):
    """Of one process.

    `behind_proxy`: believe the last X-Forwarded-For entry, which our own proxy wrote.
    `socket_group`: the group that may connect to a Unix socket, by name or number.
    `private_webhooks`: let every webhook reach addresses that are not on the Internet.
    """

    bind: Bind
    socket: Path  # the daemon's
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_public: bool = False
    no_auth: bool = False
    behind_proxy: bool = False
    private_webhooks: bool = False
    socket_group: str | None = None

    @property
    def has_tls(self) -> bool:
        return self.tls_cert is not None

    def check(self) -> None:
        """Refuse what would let strangers in, or let others read along.

        Raises:
            InvalidParams: the message says which option is wrong and what to do instead.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidParams("tls-cert: --tls-cert and --tls-key go together", field="tls-cert")
        if self.socket_group is not None and self.bind.path is None:
            raise InvalidParams(
                f"socket-group: {self.bind} is no Unix socket, so nobody needs a group for it: "
                "give --bind unix:/PATH, or leave --socket-group out",
                field="socket-group",
            )
        if self.bind.is_local:
            return
        if self.no_auth:
            raise InvalidParams(
                f"no-auth: {self.bind} can be reached from other hosts; without authentication "
                "the gateway listens on a loopback address or a Unix socket only",
                field="no-auth",
            )
        if not self.has_tls and not self.allow_public:
            raise InvalidParams(
                f"bind: {self.bind} can be reached from other hosts, and without TLS API keys and "
                "messages would travel in the clear. Give --tls-cert and --tls-key; or bind "
                "127.0.0.1 and use an SSH tunnel or a reverse proxy; or say --allow-public if the "
                "network between is yours",
                field="bind",
            )

    def certificates(self) -> Certificates | None:
        """What TLS shows; None without TLS.

        Raises:
            InvalidParams: the files cannot be used.
        """
        if self.tls_cert is None or self.tls_key is None:
            return None
        return Certificates(self.tls_cert, self.tls_key)
