"""What rules grant, as a table and as properties."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.model.access import AccessRule, Subject
from whatsappd.rules.access import FULL, NOTHING, Rights, refusal, rights_of

OWNER, SHOP, OTHER = 990, 1001, 1002
STAFF = 50


def user(uid: int, *companies: str, read_only: bool = False) -> AccessRule:
    return AccessRule(
        Subject.USER, uid, str(uid), frozenset(companies) if companies else None, read_only
    )


def group(gid: int, *companies: str, read_only: bool = False) -> AccessRule:
    return user(gid, *companies, read_only=read_only)._replace(subject=Subject.GROUP)


def rights(*rules: AccessRule, uid: int = SHOP, gids: tuple[int, ...] = ()) -> Rights:
    return rights_of(rules, uid=uid, gids=gids, owner=OWNER)


ACME, BOTH = frozenset({"acme"}), frozenset({"acme", "globex"})


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), FULL),
        ((user(OTHER),), NOTHING),
        ((user(SHOP),), FULL),
        ((user(SHOP, read_only=True),), Rights(None, frozenset())),
        ((user(SHOP, "acme"),), Rights(ACME, ACME)),
        ((user(SHOP, "acme", read_only=True),), Rights(ACME, frozenset())),
        # Rules add up.
        ((user(SHOP, "acme"), user(SHOP, "globex")), Rights(BOTH, BOTH)),
        ((user(SHOP, "acme"), user(SHOP, "globex", read_only=True)), Rights(BOTH, ACME)),
        ((user(SHOP, "acme"), user(SHOP, read_only=True)), Rights(None, ACME)),
        ((user(SHOP, "acme"), group(STAFF, "globex")), Rights(BOTH, BOTH)),
        ((user(SHOP, "acme"), group(STAFF)), FULL),
        # A uid is no gid.
        ((group(SHOP, "acme"),), NOTHING),
        ((user(STAFF, "acme"),), NOTHING),
    ],
)
def test_what_rules_grant(rules: tuple[AccessRule, ...], expected: Rights) -> None:
    assert rights(*rules, gids=(100, STAFF)) == expected


@pytest.mark.parametrize("uid", [0, OWNER])
def test_root_and_the_daemons_own_user_always_may(uid: int) -> None:
    assert rights(user(OTHER, "acme"), uid=uid) == FULL


RULES = st.builds(
    AccessRule,
    subject=st.sampled_from(list(Subject)),
    id=st.sampled_from([SHOP, OTHER, STAFF]),
    name=st.just("x"),
    companies=st.none() | st.frozensets(st.sampled_from(["acme", "globex", "x"]), min_size=1),
    read_only=st.booleans(),
)


@given(st.lists(RULES, min_size=1), RULES)
def test_a_further_rule_never_takes_anything(rules: list[AccessRule], more: AccessRule) -> None:
    assert rights(*rules, more, gids=(STAFF,)).cover(rights(*rules, gids=(STAFF,)))


@given(st.lists(RULES, min_size=1))
def test_the_order_of_rules_does_not_matter(rules: list[AccessRule]) -> None:
    found = {rights(*order, gids=(STAFF,)) for order in itertools.permutations(rules[:4])}
    assert len(found) == 1


@given(st.lists(RULES))
def test_who_may_act_for_a_company_may_look_at_it(rules: list[AccessRule]) -> None:
    granted = rights(*rules, gids=(STAFF,))
    for company in ("acme", "globex", "unheard"):
        assert not granted.may(company, write=True) or granted.may(company, write=False)
    assert not granted.may_all(write=True) or granted.may_all(write=False)
    assert granted.is_full == granted.may_all(write=True)


@given(st.lists(RULES), st.lists(RULES))
def test_cover_means_that_everything_allowed_before_still_is(
    before: list[AccessRule], after: list[AccessRule]
) -> None:
    old, new = rights(*before, gids=(STAFF,)), rights(*after, gids=(STAFF,))
    companies = ("acme", "globex", "x", "unheard")
    kept = all(
        new.may(company, write=write) or not old.may(company, write=write)
        for company in companies
        for write in (False, True)
    ) and all(new.may_all(write=write) or not old.may_all(write=write) for write in (False, True))
    assert new.cover(old) == kept


@pytest.mark.parametrize(
    ("granted", "company", "write", "words"),
    [
        (NOTHING, "acme", True, ["no access rule names user 1001", "user = 1001", '["acme"]']),
        (Rights(ACME, frozenset()), "acme", True, ["may only read for company acme"]),
        (Rights(ACME, ACME), "globex", True, ["do not allow message.send", '["globex"]']),
        (Rights(ACME, ACME), "globex", False, ["read_only = true", '["globex"]']),
        (
            Rights(None, ACME),
            None,
            True,
            ["may only read for all companies", "with user = 1001 to"],
        ),
        (Rights(ACME, ACME), None, False, ["for all companies", "user = 1001, read_only"]),
    ],
)
def test_a_refusal_names_the_rule_that_is_missing(
    granted: Rights, company: str | None, write: bool, words: list[str]
) -> None:
    told = refusal(SHOP, granted, "message.send", company, write=write)
    for word in words:
        assert word in told
    assert "[[access]]" in told
