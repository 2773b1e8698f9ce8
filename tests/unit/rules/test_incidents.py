"""What happens to a session, in words: every cause has some, and they are a person's."""

from __future__ import annotations

import pytest

from whatsappd.rules import incidents
from whatsappd.rules.incidents import LONGEST_BAN_MS, Incident, plain
from whatsappd.rules.lifecycle import SessionCause

CRASH = incidents.exited("exit code 2", "fatal error: x", None)
TELLING = [
    incidents.unlinked(401),
    incidents.unlinked(999),
    incidents.banned(101, 5),
    incidents.banned(0, 0),
    incidents.login_refused(503, "try later"),
    incidents.login_refused(None, ""),
    incidents.pairing_refused("x"),
    incidents.ended("x"),
    incidents.ended(None),
    incidents.exited("exit code 1", None, None),
    CRASH,
    incidents.exited("killed by SIGKILL", None, "it sent a request"),
    incidents.recycled("412 descriptors"),
    incidents.spawn_failed("x"),
    incidents.broken_off("X.Y"),
    incidents.given_up(6, incidents.exited("exit code 1", None, None)),
    incidents.given_up(6, CRASH),
    incidents.account_taken("globex"),
    incidents.other_account("15550100@s.whatsapp.net", "1@lid"),
    incidents.other_account(None, None),
]


@pytest.mark.parametrize("incident", TELLING, ids=lambda each: str(each.cause))
def test_an_incident_has_words(incident: Incident) -> None:
    assert incident.words
    assert "None" not in incident.words


def test_every_cause_has_an_incident() -> None:
    told = {incident.cause for incident in TELLING}
    for cause in set(SessionCause) - told:
        assert plain(cause).words


def test_what_a_worker_grew_to_is_kept() -> None:
    recycled = incidents.recycled("412 descriptors")
    assert recycled.detail == "412 descriptors"
    assert "412 descriptors" in recycled.words


@pytest.mark.parametrize(
    ("expire_s", "expected"),
    [(3600, 3_600_000), (0, 0), (2**63 - 1, LONGEST_BAN_MS), (10**9, LONGEST_BAN_MS)],
)
def test_no_ban_is_longer_than_a_date_can_say(expire_s: int, expected: int) -> None:
    assert incidents.banned(101, expire_s).ban_ms == expected


def test_only_the_librarys_own_crashes_are_waited_out() -> None:
    assert incidents.given_up(6, CRASH).cause is SessionCause.CRASHING
    other = incidents.exited("killed by SIGKILL", None, None)
    assert incidents.given_up(6, other).cause is SessionCause.GIVE_UP
