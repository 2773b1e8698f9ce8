"""The gateway's settings, each declared once; and the refusal to listen carelessly.

`whatsappd gateway` has an option for each (`gateway.options`).
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from whatsappd.errors import InvalidParams

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


def option(words: str, *, metavar: str | None = None, name: str | None = None) -> Meta:
    """The annotation of a setting: what its option's help says.

    Args:
        metavar: what the help calls its value.
        name: the option's, if it is not the field's.
    """
    return Meta(description=words, extra={"metavar": metavar, "name": name})


class Exposure(NamedTuple):
    """Who can send requests to a gateway, and through what.

    Args:
        local_only: nobody has to say who they are, so only programs of this host may ask: what a
            web page of elsewhere sends through the browser of somebody on this host is refused.
        behind_proxy: believe what our own proxy wrote: the last entry of X-Forwarded-For, the
            prefix and the scheme.
    """

    local_only: bool = False
    behind_proxy: bool = False


class GatewaySettings(Struct, frozen=True):
    """Of one process."""

    bind: Annotated[Bind, option("Where to listen: HOST:PORT, or unix:/PATH.", metavar="ADDRESS")]
    socket: Annotated[Path, option("The daemon's socket. Default: as whatsappctl.")]
    tls_cert: Annotated[
        Path | None, option("Serve HTTPS: the certificate chain.", metavar="FILE")
    ] = None
    tls_key: Annotated[Path | None, option("And its private key.", metavar="FILE")] = None
    allow_public: Annotated[bool, option("Listen without TLS where others can connect.")] = False
    no_auth: Annotated[bool, option("No API keys; on loopback and Unix sockets only.")] = False
    socket_group: Annotated[
        str | None,
        option(
            "Who may connect to unix:/PATH, beside its user: the web server's group. Default: the "
            "gateway's own.",
            metavar="GROUP",
        ),
    ] = None
    #: Believe the last entry of X-Forwarded-For, which our own proxy wrote.
    behind_proxy: Annotated[bool, option("Believe X-Forwarded-For, which our own proxy sets.")] = (
        False
    )
    private_webhooks: Annotated[
        bool,
        option(
            "Let all webhooks reach addresses that are not on the Internet: this host, your "
            "network. Default: only those that were made with --allow-private.",
            name="--allow-private-webhooks",
        ),
    ] = False

    @property
    def has_tls(self) -> bool:
        return self.tls_cert is not None

    @property
    def exposure(self) -> Exposure:
        return Exposure(local_only=self.no_auth, behind_proxy=self.behind_proxy)

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
