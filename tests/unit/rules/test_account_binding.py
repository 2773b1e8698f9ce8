"""Whose account it is: the rule, for every case."""

from __future__ import annotations

import pytest

from whatsappd.rules.account_binding import BoundAccount, Standing, bound_account, is_same, standing

OWN = BoundAccount("15550100@s.whatsapp.net", "100@lid")
OTHER = BoundAccount("15550300@s.whatsapp.net", "300@lid")


@pytest.mark.parametrize(
    ("bound", "linked", "claimed", "owner", "has_waiting", "expected"),
    [
        (None, OWN, False, None, False, Standing.OURS),
        (None, OWN, False, None, True, Standing.OURS),  # queued before it was ever linked
        (OWN, OWN, True, None, True, Standing.OURS),
        (OWN, OWN, False, None, True, Standing.OURS),  # logged out, and linked with it again
        (OWN, OTHER, True, None, False, Standing.OTHER),
        (OWN, OTHER, True, None, True, Standing.OTHER),
        (OWN, OTHER, False, None, False, Standing.OURS),  # logged out, and nothing waits
        (OWN, OTHER, False, None, True, Standing.OTHER),
        (OWN, OWN, True, "globex", False, Standing.TAKEN),
        (None, OWN, False, "globex", False, Standing.TAKEN),
        (OWN, OTHER, True, "globex", True, Standing.TAKEN),
    ],
)
def test_what_an_account_is_to_a_company(
    bound: BoundAccount | None,
    linked: BoundAccount,
    claimed: bool,
    owner: str | None,
    has_waiting: bool,
    expected: Standing,
) -> None:
    found = standing(bound, linked, claimed=claimed, owner=owner, has_waiting=has_waiting)
    assert found is expected


def test_either_identity_makes_an_account_the_same() -> None:
    assert is_same(OWN, OWN)
    assert is_same(OWN, BoundAccount("15550999@s.whatsapp.net", "100@lid"))  # a changed number
    assert is_same(OWN, BoundAccount("15550100@s.whatsapp.net", None))
    assert not is_same(OWN, OTHER)
    assert not is_same(BoundAccount(None, None), BoundAccount(None, None))


def test_a_devices_identities_name_its_account() -> None:
    assert bound_account("15550100:3@s.whatsapp.net", "100:3@lid") == OWN
    assert bound_account("15550100@s.whatsapp.net", None) == OWN._replace(lid=None)
    with pytest.raises(ValueError, match="no JID"):
        bound_account("15550100:x@s.whatsapp.net", None)
