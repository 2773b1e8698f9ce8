"""Reads the access rules (`[[access]]`) of the settings' file into `model.access.AccessRule`.

Names of users and groups are looked up here, once: the daemon's loop must not wait for a directory
service, and a name that does not exist is a mistake that its writer should hear of.
"""

from __future__ import annotations

import grp
import pwd
from typing import Any

from whatsappd.config.value_formats import BadValue
from whatsappd.errors import InvalidParams
from whatsappd.model.access import AccessRule, Subject
from whatsappd.model.company import validate_company

_KEYS = ("user", "group", "companies", "read_only")
_MAX_ID = 2**32 - 2  # the last one means "none" to the kernel

#: For the sample.
EXAMPLE = """\
[[access]]
user = "shop"            # or group = "..."; a name or a number
companies = ["acme"]     # left out: all companies, and the daemon itself
read_only = false        # true: look and follow, but change nothing
"""


def parse_rule(table: Any) -> AccessRule:
    """The rule that one `[[access]]` table describes.

    Raises:
        BadValue: it is none; the text says what is wrong and what to write.
    """
    if not isinstance(table, dict):
        raise BadValue("is no table: write [[access]] with user or group below it")
    for key in table:
        if key not in _KEYS:
            raise BadValue(f"has no key {key!r:.80}: write {', '.join(_KEYS)}")
    subjects = [subject for subject in Subject if subject.value in table]
    if len(subjects) != 1:
        raise BadValue('needs either user or group: write user = "NAME" or group = "NAME"')
    [subject] = subjects
    given = table[subject.value]
    read_only = table.get("read_only", False)
    if not isinstance(read_only, bool):
        raise BadValue("read_only is neither true nor false")
    return AccessRule(
        subject=subject,
        id=_look_up(subject, given),
        name=str(given),
        companies=_companies(table["companies"]) if "companies" in table else None,
        read_only=read_only,
    )


def _companies(given: Any) -> frozenset[str]:
    if not isinstance(given, list) or not given:
        raise BadValue('companies is no list of company ids: write companies = ["acme"]')
    try:
        return frozenset(validate_company(company, field="companies") for company in given)
    except InvalidParams as error:
        raise BadValue(error.message) from error


def _look_up(subject: Subject, given: Any) -> int:
    """The uid or gid of a name or number."""
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given <= _MAX_ID:
            raise BadValue(f"{subject} is no possible number")
        return given
    if not isinstance(given, str) or not given:
        raise BadValue(f"{subject} is neither a name nor a number")
    try:
        return pwd.getpwnam(given).pw_uid if subject is Subject.USER else group_id(given)
    except (KeyError, ValueError):  # a name with a NUL in it is none, too
        raise BadValue(
            f"this host has no {subject} {given!r:.80}: create it, or remove the rule"
        ) from None


def group_id(given: str) -> int:
    """The gid of a group's name, or of its number as a text.

    Raises:
        KeyError: there is no such group.
    """
    if not given.isascii() or not given.isdigit():
        return grp.getgrnam(given).gr_gid
    if len(given) > len(str(_MAX_ID)) or int(given) > _MAX_ID:
        raise KeyError(given)
    return int(given)
