"""The version that answers each user, before and after a release changes."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbandits.serving.versions import TrafficSplit

USERS = range(20_000)


@st.composite
def shares(draw, versions=("a", "b", "c", "d")):
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=len(versions) - 1, max_size=len(versions) - 1)))
    sizes = [high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]
    return dict(zip(versions, sizes, strict=True))


def split(release, users=USERS):
    return [release.version(user) for user in users]


def test_shares_are_met_over_100000_users():
    """Binomial: 5 standard deviations of a share p are 5 sqrt(p (1 - p) n)."""
    expected = {"a": 60, "b": 30, "c": 9, "d": 1}
    counts = Counter(split(TrafficSplit(expected), range(100_000)))
    for version, share in expected.items():
        p = share / 100
        assert abs(counts[version] - 100_000 * p) < 5 * (p * (1 - p) * 100_000) ** 0.5


@settings(max_examples=20, deadline=None)
@given(shares())
def test_no_user_gets_a_version_without_traffic_and_each_user_always_gets_the_same(shares):
    first = split(TrafficSplit(shares), range(500))
    assert set(first) <= {version for version, share in shares.items() if share}
    assert first == split(TrafficSplit(dict(reversed(shares.items()))), range(500))


@settings(max_examples=20, deadline=None)
@given(shares(), st.sampled_from("abcd"), st.data())
def test_no_user_leaves_a_version_whose_share_grows(shares, grows, data):
    before = TrafficSplit(shares)
    after = before.with_version(grows, data.draw(st.integers(shares[grows], 100)))
    moves = zip(split(before, range(500)), split(after, range(500)), strict=True)
    assert {new for old, new in moves if old == grows} <= {grows}


def test_a_canary_of_10_percent_keeps_its_users_when_it_grows_to_20():
    small, large = TrafficSplit({"old": 90, "new": 10}), TrafficSplit({"old": 80, "new": 20})
    first, second = ({user for user in USERS if each.version(user) == "new"} for each in (small, large))
    assert first < second
    assert len(first) == pytest.approx(2000, abs=220)
    assert len(second) == pytest.approx(4000, abs=290)


def test_another_canary_gets_other_users():
    """Two canaries of 10 % share 1 % of the users, not all of theirs."""
    first, second = (
        {user for user in USERS if TrafficSplit({"old": 90, name: 10}).version(user) == name} for name in ("x", "y")
    )
    assert len(first & second) < 0.2 * len(first)


def test_an_integer_id_and_its_text_are_one_user():
    release = TrafficSplit({"a": 50, "b": 50})
    assert [release.version(user) for user in range(100)] == [release.version(str(user)) for user in range(100)]


def test_roll_back_returns_to_the_shares_before_and_again_to_those_after():
    release = TrafficSplit({"a": 100}).with_version("b", 10)
    assert release.shares == {"a": 90, "b": 10}
    assert release.rolled_back().shares == {"a": 100, "b": 0}
    assert release.rolled_back().rolled_back().shares == release.shares
    with pytest.raises(ValueError, match="there is no earlier release"):
        TrafficSplit({"a": 100}).rolled_back()


@pytest.mark.parametrize(
    ("before", "share", "after"),
    [
        ({"a": 100}, 0, {"a": 100, "c": 0}),
        ({"a": 100}, 100, {"a": 0, "c": 100}),
        ({"a": 75, "b": 25}, 20, {"a": 60, "b": 20, "c": 20}),
        ({"a": 50, "b": 50}, 33, {"a": 34, "b": 33, "c": 33}),
        ({"c": 100}, 100, {"c": 100}),
        ({"a": 10, "c": 90}, 0, {"a": 100, "c": 0}),
    ],
)
def test_a_new_version_takes_its_share_and_the_others_split_the_rest_as_before(before, share, after):
    assert TrafficSplit(before).with_version("c", share).shares == after


def test_a_version_without_traffic_goes_and_is_not_returned_to():
    release = TrafficSplit({"a": 0, "b": 100}, previous={"a": 100, "b": 0})
    assert release.without("a") == TrafficSplit({"b": 100})
    split_without_a = TrafficSplit({"a": 0, "b": 40, "c": 60}, previous={"a": 0, "b": 90, "c": 10}).without("a")
    assert split_without_a == TrafficSplit({"b": 40, "c": 60}, previous={"b": 90, "c": 10})
    with pytest.raises(ValueError, match="version 'b' still has 100 % of the traffic"):
        release.without("b")
    with pytest.raises(ValueError, match="version 'x' is not deployed, there is a, b"):
        release.without("x")


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({"a": 50, "b": 49}, r"shares must add up to 100, got 50 \+ 49"),
        ({"a": 110, "b": -10}, "share of 'a' must be a whole number from 0 to 100, got 110"),
        ({"a": 99.5, "b": 0.5}, "share of 'a' must be a whole number from 0 to 100, got 99.5"),
        ({"a": True, "b": 99}, "share of 'a' must be a whole number from 0 to 100, got True"),
        ({}, "shares must be a dict from version to percentage, got {}"),
        ([100], r"shares must be a dict from version to percentage, got \[100\]"),
        ({"": 100}, "version of shares must be text that is not empty, got ''"),
    ],
)
def test_other_shares_are_refused(shares, sentence):
    for make in (TrafficSplit, TrafficSplit({"z": 100}).then if isinstance(shares, dict) else TrafficSplit):
        with pytest.raises(ValueError, match=sentence):
            make(shares)


@pytest.mark.parametrize("document", [None, {"previous": None}, {"shares": {"a": 100}, "more": 1}])
def test_other_documents_are_refused(document):
    with pytest.raises(ValueError, match="a release must be an object with 'shares'"):
        TrafficSplit.of(document)


def test_a_release_survives_its_document():
    release = TrafficSplit({"a": 90, "b": 10}, previous={"a": 100})
    assert TrafficSplit.of(vars(release)) == release
