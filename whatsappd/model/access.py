"""Who may call the daemon: the rules as they are configured. `rules.access` decides by them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Subject(StrEnum):
    """Whom a rule is about."""

    USER = "user"
    GROUP = "group"


class AccessRule(NamedTuple):
    """What one user, or the members of one group, may do. Rules add up; none forbids anything."""

    subject: Subject
    id: int  # uid or gid
    name: str  # as it was configured, for people
    companies: frozenset[str] | None = None  # None: all of them, and what belongs to none
    read_only: bool = False


class KeyScope(StrEnum):
    """What an API key is good for. Each includes the one before."""

    READ = "read"  # sessions, messages and events; moving one's own cursors
    SEND = "send"  # and sending, cancelling and resolving messages
    ADMIN = "admin"  # and starting, configuring, linking and removing sessions
