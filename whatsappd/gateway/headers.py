"""The HTTP headers that every answer of the gateway has, whichever part of it answers.

`connection` adds them to what it sends: documents, problems, streams, and the answers to what is no
request at all. A route that needs another value sets it itself (the page its policy, for one).
"""

from __future__ import annotations

from collections.abc import Iterable

Header = tuple[bytes, bytes]

#: What stands unless the route says otherwise. The answers are data, and nobody else's.
POLICY: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
)
#: A year. Not `includeSubDomains`: other hosts of the domain are somebody else's.
SECURE: Header = (b"strict-transport-security", b"max-age=31536000")


def with_policy(headers: Iterable[Header], *, secure: bool) -> list[Header]:
    """`headers`, and those of the policy that are not among them.

    Args:
        secure: the client came by https, so that it may be told to come by nothing else.
    """
    given = list(headers)
    names = {name.lower() for name, _ in given}
    given += [header for header in POLICY if header[0] not in names]
    if secure and SECURE[0] not in names:
        given.append(SECURE)
    return given
