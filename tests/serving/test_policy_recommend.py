"""Recommending by ids: scores by hand, exact propensities, people and movies that nobody knows, and refusals."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbandits.data.features import FeatureBundle
from recbandits.exploration import Exploration, greedy
from recbandits.serving.policy import LoadedPolicy
from recbandits.serving.scorer import Scorer, linear_head

TITLES = {"5": "Five", "7": "Seven", "9": "Nine"}


def made(theta, view="match", arms=None, exploration=None):
    """A policy for users 30 and 10 and movies 9, 5 and 7, as `load` makes it of a directory.

    Users have an activity and two factors, movies a year and two factors; in the view "match" a pair has activity, year
    and the dot product of the factors.
    """
    bundle = FeatureBundle(
        pd.DataFrame([[0.5, 3, 4], [1.5, 1, 2]], pd.Index([30, 10]), ["activity", "factor_0", "factor_1"]),
        pd.DataFrame([[3, -1, 2], [1, 0, 1], [2, 1, 0]], pd.Index([9, 5, 7]), ["year", "factor_0", "factor_1"]),
        view,
    )
    exploration = exploration or Exploration()
    settings = {
        "version": "0123456789abcdef",
        "digest": "0" * 64,
        "exploration": {"name": exploration.name, "value": exploration.value},
        "summary": None,
        "titles": TITLES,
        "arms": arms,
    }
    head = linear_head(np.array(theta, np.float32))
    scorer = Scorer("none" if arms else "concat", "relu", (), (), (head,))
    return LoadedPolicy(Path("nowhere"), settings, scorer, bundle)


THETA = [[1.0, 10.0, 100.0]]  # of activity, year, match


def test_a_recommendation_is_the_best_score_and_the_next_ones():
    """User 30 matches movie 9 by -3 + 8 = 5, 5 by 4, 7 by 3: scores 0.5 + 30 + 500, 0.5 + 10 + 400, 0.5 + 20 + 300."""
    answer = made(THETA).recommend(30, k=3)
    assert (answer.item_ids, answer.titles) == ([9, 5, 7], ["Nine", "Five", "Seven"])
    assert answer.scores == [530.5, 410.5, 320.5]
    assert (answer.propensity, answer.policy_version, answer.user_id) == (1.0, "0123456789abcdef", 30)
    assert answer.candidates.tolist() == [9, 5, 7]
    assert answer.context.tolist() == [0.5]


def test_the_view_of_products_scores_number_by_number():
    """User 10 sees (1.5, 1, 2), movie 7 (2, 1, 0) and the products (1, 0); weights are 1 to 8 in this order."""
    answer = made([[1, 2, 3, 4, 5, 6, 7, 8]], view="product").recommend(10, candidates=[7])
    assert answer.scores == [1 * 1.5 + 2 * 1 + 3 * 2 + 4 * 2 + 5 * 1 + 6 * 0 + 7 * 1 + 8 * 0]


def test_fixed_arms_are_scored_by_the_user_alone_and_answer_with_their_movies():
    """Activity 1.5 times 1, 2 and -1, of movies 101, 5 and 102; the second has no title."""
    policy = made([[1.0], [2.0], [-1.0]], arms=[101, 5, 102])
    answer = policy.recommend(10, k=3)
    assert (answer.item_ids, answer.scores) == ([5, 101, 102], [3.0, 1.5, -1.5])
    assert answer.titles == ["Five", "item 101", "item 102"]
    assert policy.recommend(10, candidates=[102, 101], k=2).item_ids == [101, 102]
    np.testing.assert_array_equal(policy.scores([10, 30], [[5, 102], [101, 5]]), [[3.0, -1.5], [0.5, 1.0]])


def test_an_unknown_user_is_the_mean_of_what_is_not_named_and_has_no_factors():
    """Activity 1 on average, match 0: 1 + 10 year. With factor_1 = 2 movie 9 matches by 4 and 5 by 2."""
    policy = made(THETA)
    assert policy.recommend(features={}, k=3).scores == [31, 21, 11]
    answer = policy.recommend(77, features={"activity": 5.0, "factor_1": 2}, k=2)
    assert (answer.user_id, answer.item_ids, answer.scores) == (77, [9, 5], [5 + 30 + 400, 5 + 10 + 200])


def test_a_known_user_keeps_what_is_not_named():
    assert made(THETA).recommend(30, {"activity": 0.0}, k=3).scores == [530.0, 410.0, 320.0]


def test_new_items_are_candidates_by_their_features():
    """The mean year is 2; user 30 matches nothing without factors: 0.5 + 10 year."""
    policy, new = made(THETA), {88: {"year": 60}, 89: {}}
    answer = policy.recommend(30, k=5, new_items=new)
    assert (answer.item_ids, answer.scores[:1], answer.scores[-1:]) == ([88, 9, 5, 7, 89], [600.5], [20.5])
    assert answer.titles[0] == "item 88"
    assert policy.recommend(30, candidates=[5, 89], k=2, new_items={89: {}}).item_ids == [5, 89]
    assert policy.recommend(30, k=3, new_items={7: {"year": 99}}).item_ids == [7, 9, 5]


@pytest.mark.parametrize("way", [("epsilon_greedy", 0.5), ("softmax", 20.0), ("inverse_gap", 0.1)])
def test_draws_have_the_frequency_of_their_propensities(way):
    """10,000 decisions and 2,000 recommendations with fresh randomness: within 5 standard deviations of each share."""
    policy = made([[0.0, 10.0, 1.0]], exploration=Exploration(*way))
    decided = policy.decide([30] * 10_000)
    expected = decided.probabilities[0]
    shares = np.bincount(decided.action, minlength=3) / 10_000
    np.testing.assert_array_less(abs(shares - expected), 5 * np.sqrt(expected * (1 - expected) / 10_000))
    np.testing.assert_array_equal(decided.propensity, expected[decided.action])
    answers = [policy.recommend(30) for _ in range(2_000)]
    for place, movie in enumerate([9, 5, 7]):
        drawn = [answer for answer in answers if answer.item_ids == [movie]]
        assert {answer.propensity for answer in drawn} == {expected[place]}
        spread = np.sqrt(expected[place] * (1 - expected[place]) / 2_000)
        assert abs(len(drawn) / 2_000 - expected[place]) < 5 * spread


@given(
    user=st.sampled_from([10, 30]),
    candidates=st.permutations([9, 5, 7]).flatmap(lambda ids: st.integers(1, 3).map(lambda size: ids[:size])),
    way=st.sampled_from([("greedy", 0.0), ("epsilon_greedy", 0.3), ("softmax", 50.0), ("inverse_gap", 0.01)]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_whatever_is_asked_the_propensity_is_that_of_the_first_and_the_rest_follow_by_score(
    user, candidates, way, seed, data
):
    policy = made(THETA, exploration=Exploration(*way))
    k = data.draw(st.integers(1, len(candidates)))
    answer = policy.recommend(user, candidates=candidates, k=k, rng=seed)
    scores = policy.scores([user], [candidates])
    place = candidates.index(answer.item_ids[0])
    assert answer.propensity == policy.exploration.probabilities(scores)[0, place]
    others = [movie for movie in np.array(candidates)[np.argsort(-scores[0])] if movie != answer.item_ids[0]]
    assert answer.item_ids[1:] == others[: k - 1]
    assert answer.scores == [scores[0, candidates.index(movie)] for movie in answer.item_ids]
    decided = policy.decide([user], [candidates], rng=seed)
    assert (decided.action[0], decided.propensity[0]) == (place, answer.propensity)


def test_a_seed_or_a_generator_decides_and_event_ids_are_new_all_the_same():
    policy = made(THETA, exploration=Exploration("epsilon_greedy", 1.0))
    answers = [policy.recommend(30, rng=3), policy.recommend(30, rng=3)]
    assert answers[0].item_ids == answers[1].item_ids
    assert answers[0].event_id != answers[1].event_id
    generator = np.random.default_rng(3)
    drawn = [policy.recommend(30, rng=generator).item_ids[0] for _ in range(50)]
    assert drawn[0] == answers[0].item_ids[0]
    assert set(drawn) == {9, 5, 7}


def test_threads_and_forks_draw_apart():
    policy = made(THETA, exploration=Exploration("epsilon_greedy", 1.0))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: policy.recommend(30), range(400)))
    assert len({answer.event_id for answer in answers}) == 400
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, bytes(policy.recommend(30).item_ids[0] for _ in range(64)))
        os._exit(0)
    mine = bytes(policy.recommend(30).item_ids[0] for _ in range(64))
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 64) != mine
    os.close(read)
    os.close(write)


def test_a_slate_is_drawn_whole_and_every_place_says_how_probable_it_was():
    """User 30 scores 9, 5 and 7 by 530.5, 410.5 and 320.5: at temperature 300 weights are exp(0.4), 1 and exp(-0.3)."""
    policy = made(THETA, exploration=Exploration("plackett_luce", 300.0))
    weights, slates = {9: np.exp(0.4), 5: 1.0, 7: np.exp(-0.3)}, set()
    for seed in range(60):
        answer = policy.recommend(30, k=3, rng=seed)
        a, b, c = (weights[movie] for movie in answer.item_ids)
        np.testing.assert_allclose(answer.propensities, [a / (a + b + c), b / (b + c), 1.0])
        assert answer.scores == [{9: 530.5, 5: 410.5, 7: 320.5}[movie] for movie in answer.item_ids]
        assert answer.titles == [TITLES[str(movie)] for movie in answer.item_ids]
        record = answer.interaction(datetime(2024, 1, 1, tzinfo=UTC))
        assert (record.action, record.propensity) == (answer.item_ids[0], answer.propensities[0])
        slates.add(tuple(answer.item_ids))
    assert len(slates) == 6
    assert policy.recommend(30, candidates=[7, 5], k=2, rng=0).propensities[1] == 1.0
    assert made(THETA).recommend(30, k=3).propensities == [1.0, 1.0, 1.0]


def test_padding_is_never_chosen_and_scores_minus_infinity():
    policy = made(THETA, exploration=Exploration("epsilon_greedy", 1.0))
    mask = np.tile([[True, False, True]], (500, 1))
    decided = policy.decide([30] * 500, np.tile([[9, 0, 5]], (500, 1)), mask)
    assert set(decided.action) == {0, 2}
    assert np.isneginf(decided.scores[:, 1]).all()
    np.testing.assert_array_equal(decided.probabilities[0], [0.5, 0, 0.5])


def test_a_recommendation_becomes_the_record_of_an_interaction():
    answer = made(THETA, exploration=Exploration("softmax", 100.0)).recommend(30, candidates=[7, 9], k=2, rng=0)
    record = answer.interaction(datetime(2024, 1, 1, tzinfo=UTC), pass_prob=0.5)
    assert (record.event_id, record.policy_version, record.user_id) == (answer.event_id, "0123456789abcdef", 30)
    assert (record.context, record.candidates, record.action) == ((0.5,), (7, 9), answer.item_ids[0])
    assert (record.propensity, record.pass_prob) == (answer.propensity, 0.5)
    assert made(THETA).recommend(features={}).interaction(datetime.now(UTC)).user_id is None


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({}, ValueError, "a user must have a user_id or features, got neither"),
        ({"user_id": 99}, KeyError, "unknown user ids: 99; describe who is new by `features`"),
        ({"user_id": "30"}, ValueError, "user_id must be a whole number, got '30'"),
        ({"user_id": True}, ValueError, "user_id must be a whole number, got True"),
        ({"user_id": 2**70}, ValueError, "user ids must be whole numbers of 64 bits"),
        ({"user_id": 99, "features": {"age": 3}}, ValueError, "a user has no feature 'age', it has activity, factor_0"),
        ({"features": {"activity": float("nan")}}, ValueError, "'activity' of a user must be a finite number, got nan"),
        ({"features": {"activity": 1e300}}, ValueError, "must be a finite number, got 1e[+]300"),
        ({"features": {"activity": 10**400}}, ValueError, "must be a finite number, got 1000"),
        ({"features": {"activity": "1"}}, ValueError, "must be a finite number, got '1'"),
        ({"user_id": 30, "candidates": []}, ValueError, r"different from each other, at least one, got \[\]"),
        ({"user_id": 30, "candidates": [5, 5]}, ValueError, r"different from each other, at least one, got \[5, 5\]"),
        ({"user_id": 30, "candidates": [[5]]}, ValueError, r"different from each other, at least one, got \[\[5\]\]"),
        ({"user_id": 30, "candidates": [5, 6, 8]}, KeyError, "unknown movie ids: 6, 8; describe what is new by"),
        ({"user_id": 30, "candidates": [5.0, 7.5]}, ValueError, "movie ids must be whole numbers of 64 bits, got"),
        ({"user_id": 30, "candidates": ["x"]}, ValueError, r"movie ids must be whole numbers of 64 bits, got \['x'\]"),
        ({"user_id": 30, "k": 4}, ValueError, "k must be a whole number from 1 to the number of candidates, 3, got 4"),
        (
            {"user_id": 30, "rng": -1},
            ValueError,
            "rng must be None, a seed of 0 or more, or a generator of NumPy, got -1",
        ),
        ({"user_id": 30, "k": 0}, ValueError, "k must be a whole number"),
        ({"user_id": 30, "candidates": [5], "new_items": {8: {}}}, ValueError, "among the candidates, 8 is not"),
        ({"user_id": 30, "new_items": {8: {"pages": 3}}}, ValueError, "a movie has no feature 'pages', it has year"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_sentence(asked, error, message):
    with pytest.raises(error, match=message):
        made(THETA).recommend(**asked)


def test_fixed_arms_are_the_only_candidates():
    policy = made([[1.0], [2.0]], arms=[101, 5])
    with pytest.raises(KeyError, match="unknown item ids: 9"):
        policy.recommend(30, candidates=[9])
    with pytest.raises(ValueError, match="new_items must be empty for a policy with fixed arms"):
        policy.recommend(30, new_items={88: {}})
    with pytest.raises(ValueError, match="policy must score arms by their features to score pairs"):
        policy.score_pairs([[1.0]], [[1.0]])


def test_many_decisions_are_refused_by_row():
    policy = made(THETA)
    with pytest.raises(ValueError, match=r"row 1: candidates must be different from each other, got \[5, 5\]"):
        policy.decide([30, 10], [[5, 9], [5, 5]])
    assert policy.decide([30, 10], [[5, 9], [5, 5]], [[True, True], [True, False]]).action.tolist() == [1, 0]
    with pytest.raises(ValueError, match="row 0: mask must have an available action"):
        policy.decide([30], [[5, 9]], [[False, False]])
    with pytest.raises(KeyError, match="unknown user ids: 11, 12"):
        policy.decide([12, 30, 11], [[5]] * 3)
    with pytest.raises(ValueError, match=r"must be \[n\] and \[n, k\] with k at least 1"):
        policy.decide([30], [5])


def test_scores_that_overflow_are_refused():
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="the score of action 0 must be finite, got inf"):
        made([[1e38, 0.0, 0.0]]).recommend(features={"activity": 1e30})


def test_greedy_is_sure_of_the_first_best_available_arm():
    scores = np.array([[1.0, 3.0, 3.0], [5.0, 1.0, 2.0]])
    mask = np.array([[True, True, True], [False, True, True]])
    np.testing.assert_array_equal(greedy(scores, mask), [[0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (("ucb", 1.0), "exploration must be one of greedy, epsilon_greedy, softmax, inverse_gap, plackett_luce, got"),
        (("epsilon_greedy", 1.5), r"epsilon must be in \[0, 1\], got 1.5"),
        (("softmax", 0.0), "temperature must be positive and finite, got 0"),
        (("inverse_gap", float("nan")), "gamma must be positive and finite, got nan"),
        (("softmax", "1"), "value of softmax must be a number, got '1'"),
    ],
)
def test_explorations_are_refused_where_they_are_made(way, message):
    with pytest.raises(ValueError, match=message):
        Exploration(*way)


def test_what_an_exploration_holds_fits_into_json():
    assert json.dumps(Exploration("epsilon_greedy", np.float32(0.25)).value) == "0.25"
    assert Exploration("greedy", float("nan")) == Exploration()
