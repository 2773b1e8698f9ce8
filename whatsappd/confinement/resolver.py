"""Where the name servers are told, and how a confined process goes on being able to read it.

Landlock's rules are for files that exist. Who writes /etc/resolv.conf mostly replaces it; a rule
for the old file says nothing of the new one. Where it is a link into a directory of its own, as
systemd-resolved and others have it, the directory is named instead. Else a worker keeps what it
could read at its start, and the daemon recycles it when the file is another one.
"""

from __future__ import annotations

from pathlib import Path

RESOLVER = Path("/etc/resolv.conf")
#: They hold what workers must not read.
_SHARED = frozenset(map(Path, ("/", "/etc", "/run", "/var", "/var/run", "/tmp")))  # noqa: S108


def resolver_place() -> Path:
    """What has to be readable for the resolver's file to be: a directory, or the file itself."""
    place = RESOLVER.resolve()
    return place if place.parent in _SHARED else place.parent


def resolver_file() -> tuple[int, int] | None:
    """Which file it is, where a worker that is confined now could not read another in its place;
    None if it could, or there is none."""
    place = resolver_place()
    if place != RESOLVER.resolve():
        return None
    try:
        found = place.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
