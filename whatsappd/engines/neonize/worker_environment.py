"""Which environment variables workers get, and which ports they need because of a proxy.

The daemon's environment may hold passwords (of Redis, or systemd credentials), so a worker gets
only the variables that its libraries read.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from whatsappd.engines.port import WHATSAPP_PORTS

_NAMES = frozenset(
    {
        *("HOME", "PATH", "LANG", "LANGUAGE", "TZ", "TZDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES"),
        *("GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK"),
    }
)
_PREFIXES = ("LC_", "PYTHON", "NEONIZE_", "MALLOC_", "GLIBC_")
#: In capitals or not; these may hold a password, which their user needs.
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_NO_PROXY = "NO_PROXY"
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080, "": 80}


def worker_environment(daemons: Mapping[str, str]) -> dict[str, str]:
    """The variables that the fork server and its workers start with."""
    environment = {
        name: value
        for name, value in daemons.items()
        if name in _NAMES or name.startswith(_PREFIXES) or name.upper() in (*_PROXIES, _NO_PROXY)
    }
    # A business is no bot; neonize would tag direct messages with <bot biz_bot=1>.
    environment["NEONIZE_BOT_TAG"] = "off"
    # A worker sends one message at a time. By default Go prepares for as many as the host has
    # cores, in every worker: memory, threads, and wake-ups of each other to look for work.
    environment.setdefault("GOMAXPROCS", "1")
    # Go asks name servers itself then. The C library would first try daemons on Unix sockets, which
    # workers may not use, and which would count as an attempt to.
    debug = environment.get("GODEBUG", "")
    if "netdns=" not in debug:
        environment["GODEBUG"] = ",".join(filter(None, [debug, "netdns=go"]))
    # Temporary files in the working directory, which is the company's: a confined worker has no
    # other, and SQLite goes by what access(2) says, which Landlock does not change.
    environment["SQLITE_TMPDIR"] = environment["TMPDIR"] = "."
    return environment


def ports_through(environment: Mapping[str, str]) -> frozenset[int]:
    """TCP ports that workers with this environment connect to: WhatsApp's, and those of proxies."""
    named = (environment.get(each) for name in _PROXIES for each in (name, name.lower()))
    return WHATSAPP_PORTS | {port for url in named if url and (port := proxy_port(url))}


def proxy_port(url: str) -> int | None:
    """The port of a proxy as libraries read its URL; None if it has none."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
