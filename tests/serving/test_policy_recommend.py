"""Answers of a policy: scores by hand, exact propensities, unknown requests and items, and refusals."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbandits.exploration import Exploration, greedy
from recbandits.serving import Scorer, ServedPolicy, served
from recbandits.serving.scorer import linear_head
from tests.rating_tables import rating_features

TITLES = {"5": "Five", "7": "Seven", "9": "Nine"}
USERS = pd.DataFrame([[0.5, 3, 4], [1.5, 1, 2]], [30, 10], ["activity", "factor_0", "factor_1"])
ITEMS = pd.DataFrame([[3, -1, 2], [1, 0, 1], [2, 1, 0]], [9, 5, 7], ["year", "factor_0", "factor_1"])
FIRST, SECOND = USERS.to_dict("records")
CONTEXT = USERS.loc[[30]]


def make_policy(theta, product=False, arms=None, exploration=None):
    """A policy for items 9, 5 and 7, as `load` makes it of a directory.

    Requests have an activity and two factors, items a year and two factors; a candidate has activity, year and the dot
    product of the factors, or with `product` all of them and the element-wise products.
    """
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
    return ServedPolicy(None, settings, scorer, rating_features(USERS, ITEMS, product).features)


def table(number):
    """Contexts of as many equal requests."""
    return pd.concat([CONTEXT] * number)


THETA = [[1.0, 10.0, 100.0]]  # of activity, year, match


def test_a_recommendation_is_the_best_score_and_the_next_ones():
    """The request matches item 9 by -3 + 8 = 5, 5 by 4, 7 by 3: 0.5 + 30 + 500, 0.5 + 10 + 400, 0.5 + 20 + 300."""
    answer = make_policy(THETA).recommend(FIRST, k=3, user_id="anna")
    assert (answer.item_ids, answer.titles) == (["9", "5", "7"], ["Nine", "Five", "Seven"])
    assert answer.scores == [530.5, 410.5, 320.5]
    assert (answer.propensity, answer.policy_version, answer.user_id) == (1.0, "0123456789abcdef", "anna")
    assert answer.candidates == ["9", "5", "7"]
    assert answer.context == FIRST


def test_products_are_scored_number_by_number():
    """The request has (1.5, 1, 2), item 7 (2, 1, 0) and the products (1, 0); weights are 1 to 8 in this order."""
    answer = make_policy([[1, 2, 3, 4, 5, 6, 7, 8]], product=True).recommend(SECOND, ["7"])
    assert answer.scores == [1 * 1.5 + 2 * 1 + 3 * 2 + 4 * 2 + 5 * 1 + 6 * 0 + 7 * 1 + 8 * 0]


def test_fixed_arms_are_scored_by_the_context_alone_and_answer_with_their_items():
    """Activity 1.5 times 1, 2 and -1, of items 101, 5 and 102; two have no title, so that their ids stand for them."""
    policy = make_policy([[1.0], [2.0], [-1.0]], arms=["101", "5", "102"])
    answer = policy.recommend(SECOND, k=3)
    assert (answer.item_ids, answer.scores) == (["5", "101", "102"], [3.0, 1.5, -1.5])
    assert answer.titles == ["Five", "101", "102"]
    assert policy.recommend(SECOND, ["102", "101"], k=2).item_ids == ["101", "102"]
    np.testing.assert_array_equal(policy.scores(USERS[::-1], [["5", "102"], ["101", "5"]]), [[3.0, -1.5], [0.5, 1.0]])
    np.testing.assert_array_equal(policy.scores(CONTEXT), [[0.5, 1.0, -0.5]])


def test_ids_are_text_and_whole_numbers_become_their_text():
    policy = make_policy(THETA)
    answer = policy.recommend(FIRST, [7, np.int64(9), "5"], k=3, user_id=30, new_items={5: {"year": 1.0}})
    assert (answer.candidates, answer.user_id, answer.item_ids) == (["7", "9", "5"], "30", ["9", "7", "5"])
    numbers, texts = [[7, 9]], [["7", "9"]]
    np.testing.assert_array_equal(policy.scores(CONTEXT, np.array(numbers)), policy.scores(CONTEXT, texts))
    assert policy.candidates.tolist() == ["9", "5", "7"]


def test_what_is_not_known_of_a_request_is_the_mean():
    """Numbers stay as they are here, so that 0 stands for the mean: 10 year. With factor_1 = 2 item 9 matches by 4."""
    policy = make_policy(THETA)
    assert policy.recommend(k=3).scores == policy.recommend({}, k=3).scores == [30, 20, 10]
    assert policy.recommend({"activity": None, "factor_1": float("nan")}, k=3).scores == [30, 20, 10]
    assert policy.recommend({"activity": None, "factor_1": pd.NA}, k=3).scores == [30, 20, 10]
    answer = policy.recommend({"activity": 5.0, "factor_1": 2}, k=2)
    assert (answer.item_ids, answer.scores) == (["9", "5"], [5 + 30 + 400, 5 + 10 + 200])


def test_new_items_are_candidates_by_their_columns():
    """Without factors nothing matches: 0.5 + 10 year. An item that is known is scored by the new columns alone."""
    policy, new = make_policy(THETA), {"88": {"year": 60}, "89": {}}
    answer = policy.recommend(FIRST, k=5, new_items=new)
    assert (answer.item_ids, answer.scores[:1], answer.scores[-1:]) == (["88", "9", "5", "7", "89"], [600.5], [0.5])
    assert answer.titles[0] == "88"
    assert policy.recommend(FIRST, ["5", "89"], k=2, new_items={"89": {}}).item_ids == ["5", "89"]
    answer = policy.recommend(FIRST, k=3, new_items={"7": {"year": 99}})
    assert (answer.item_ids, answer.scores[0]) == (["7", "9", "5"], 990.5)


@pytest.mark.parametrize("exploration", [("epsilon_greedy", 0.5), ("softmax", 20.0), ("inverse_gap", 0.1)])
def test_draws_have_the_frequency_of_their_propensities(exploration):
    """10,000 decisions and 2,000 recommendations with fresh randomness: within 5 standard deviations of each share."""
    policy = make_policy([[0.0, 10.0, 1.0]], exploration=Exploration(*exploration))
    decisions = policy.decide(table(10_000))
    expected = decisions.probabilities[0]
    shares = np.bincount(decisions.action, minlength=3) / 10_000
    np.testing.assert_array_less(abs(shares - expected), 5 * np.sqrt(expected * (1 - expected) / 10_000))
    np.testing.assert_array_equal(decisions.propensity, expected[decisions.action])
    answers = [policy.recommend(FIRST) for _ in range(2_000)]
    for position, item in enumerate(["9", "5", "7"]):
        drawn = [answer for answer in answers if answer.item_ids == [item]]
        assert {answer.propensity for answer in drawn} == {expected[position]}
        spread = np.sqrt(expected[position] * (1 - expected[position]) / 2_000)
        assert abs(len(drawn) / 2_000 - expected[position]) < 5 * spread


@given(
    user=st.sampled_from([0, 1]),
    candidates=st.permutations(["9", "5", "7"]).flatmap(lambda ids: st.integers(1, 3).map(lambda size: ids[:size])),
    exploration=st.sampled_from([("greedy", 0.0), ("epsilon_greedy", 0.3), ("softmax", 50.0), ("inverse_gap", 0.01)]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_for_any_request_the_propensity_is_that_of_the_first_item_and_the_rest_follow_by_score(
    user, candidates, exploration, seed, data
):
    policy, context = make_policy(THETA, exploration=Exploration(*exploration)), USERS.iloc[[user]]
    k = data.draw(st.integers(1, len(candidates)))
    answer = policy.recommend(context.to_dict("records")[0], candidates, k, seed)
    scores = policy.scores(context, [candidates])
    position = candidates.index(answer.item_ids[0])
    assert answer.propensity == policy.exploration.probabilities(scores)[0, position]
    others = [item for item in np.array(candidates)[np.argsort(-scores[0])] if item != answer.item_ids[0]]
    assert answer.item_ids[1:] == others[: k - 1]
    assert answer.scores == [scores[0, candidates.index(item)] for item in answer.item_ids]
    decisions = policy.decide(context, [candidates], rng=seed)
    assert (decisions.action[0], decisions.propensity[0]) == (position, answer.propensity)


def test_a_seed_or_a_generator_decides_and_event_ids_are_new_all_the_same():
    policy = make_policy(THETA, exploration=Exploration("epsilon_greedy", 1.0))
    answers = [policy.recommend(FIRST, rng=3), policy.recommend(FIRST, rng=3)]
    assert answers[0].item_ids == answers[1].item_ids
    assert answers[0].event_id != answers[1].event_id
    generator = np.random.default_rng(3)
    drawn = [policy.recommend(FIRST, rng=generator).item_ids[0] for _ in range(50)]
    assert drawn[0] == answers[0].item_ids[0]
    assert set(drawn) == {"9", "5", "7"}


def test_threads_and_forks_draw_apart():
    policy = make_policy(THETA, exploration=Exploration("epsilon_greedy", 1.0))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: policy.recommend(FIRST), range(400)))
    assert len({answer.event_id for answer in answers}) == 400
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, "".join(policy.recommend(FIRST).item_ids[0] for _ in range(64)).encode())
        os._exit(0)
    parent_items = "".join(policy.recommend(FIRST).item_ids[0] for _ in range(64)).encode()
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 64) != parent_items
    os.close(read)
    os.close(write)


def test_a_slate_is_drawn_whole_and_every_place_says_how_probable_it_was():
    """Items 9, 5 and 7 score 530.5, 410.5 and 320.5: at temperature 300 weights are exp(0.4), 1 and exp(-0.3)."""
    policy = make_policy(THETA, exploration=Exploration("plackett_luce", 300.0))
    weights, slates = {"9": np.exp(0.4), "5": 1.0, "7": np.exp(-0.3)}, set()
    for seed in range(60):
        answer = policy.recommend(FIRST, k=3, rng=seed)
        a, b, c = (weights[item] for item in answer.item_ids)
        np.testing.assert_allclose(answer.propensities, [a / (a + b + c), b / (b + c), 1.0])
        assert answer.scores == [{"9": 530.5, "5": 410.5, "7": 320.5}[item] for item in answer.item_ids]
        assert answer.titles == [TITLES[item] for item in answer.item_ids]
        record = answer.interaction(datetime(2024, 1, 1, tzinfo=UTC))
        assert (record.action, record.propensity) == (answer.item_ids[0], answer.propensities[0])
        slates.add(tuple(answer.item_ids))
    assert len(slates) == 6
    assert policy.recommend(FIRST, ["7", "5"], k=2, rng=0).propensities[1] == 1.0
    assert make_policy(THETA).recommend(FIRST, k=3).propensities == [1.0, 1.0, 1.0]


def test_padding_is_never_chosen_and_scores_minus_infinity():
    policy = make_policy(THETA, exploration=Exploration("epsilon_greedy", 1.0))
    mask = np.tile([[True, False, True]], (500, 1))
    decisions = policy.decide(table(500), np.tile(np.array([["9", None, "5"]]), (500, 1)), mask)
    assert set(decisions.action) == {0, 2}
    assert np.isneginf(decisions.scores[:, 1]).all()
    np.testing.assert_array_equal(decisions.probabilities[0], [0.5, 0, 0.5])


def test_a_recommendation_becomes_the_record_of_an_interaction():
    policy = make_policy(THETA, exploration=Exploration("softmax", 100.0))
    context = {"activity": np.float32(0.5), "factor_0": np.int64(3), "factor_1": float("nan")}
    answer = policy.recommend(context, ["7", "9"], k=2, rng=0, user_id="anna")
    record = answer.interaction(datetime(2024, 1, 1, tzinfo=UTC), pass_prob=0.5)
    assert (record.event_id, record.policy_version, record.user_id) == (answer.event_id, "0123456789abcdef", "anna")
    assert (record.candidates, record.action) == (("7", "9"), answer.item_ids[0])
    assert json.loads(record.context) == {"activity": 0.5, "factor_0": 3, "factor_1": None}
    assert (record.candidate_features, record.propensity, record.pass_prob) == ("{}", answer.propensity, 0.5)
    unknown = policy.recommend().interaction(datetime.now(UTC))
    assert (unknown.user_id, unknown.context) == (None, "{}")
    missing = policy.recommend({"activity": pd.NA}).interaction(datetime(2026, 1, 1, tzinfo=UTC))
    assert json.loads(missing.context) == {"activity": None}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"user_id": ""}, ValueError, "user_id must be text or a whole number, got ''"),
        ({"user_id": 7.0}, ValueError, "user_id must be text or a whole number, got 7.0"),
        ({"context": {"age": 3}}, ValueError, "column must be one of activity, factor_0, factor_1, got 'age'"),
        ({"context": {"activity": float("inf")}}, ValueError, "column 'activity' must be a finite number, got inf"),
        ({"context": {"activity": 10**400}}, ValueError, "column 'activity' must be a finite number, got 1000"),
        ({"candidates": []}, ValueError, r"candidates must be one or more ids, all different, got \[\]"),
        ({"candidates": ["5", 5]}, ValueError, r"candidates must be one or more ids, all different, got \['5', '5'\]"),
        ({"candidates": [5.0, 7.5]}, ValueError, r"candidates must be text or a whole number, got 5\.0"),
        ({"candidates": ["5", "6", "8"]}, KeyError, "unknown item ids: 6, 8; describe what is new by `new_items`"),
        ({"k": 4}, ValueError, "k must be a whole number from 1 to the number of candidates, 3, got 4"),
        ({"rng": -1}, ValueError, "rng must be None, a seed of 0 or more, or a generator of NumPy, got -1"),
        ({"candidates": ["5"], "new_items": {"8": {}}}, ValueError, "new_items must be among the candidates, got '8'"),
        ({"new_items": {"8": {"pages": 3}}}, ValueError, "column must be one of year, factor_0, factor_1, got 'pages'"),
        ({"new_items": {None: {}}}, ValueError, "id of a new item must be text or a whole number, got None"),
        ({"candidate_features": {"price": [1.0]}}, ValueError, r"candidate_features must be none, got \['price'\]"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_message(arguments, error, message):
    with pytest.raises(error, match=message):
        make_policy(THETA).recommend(**arguments)


def test_fixed_arms_are_the_only_candidates():
    policy = make_policy([[1.0], [2.0]], arms=["101", "5"])
    with pytest.raises(KeyError, match="unknown item ids: 9'"):
        policy.recommend(candidates=["9"])
    with pytest.raises(ValueError, match="new_items must be empty for a policy with fixed arms"):
        policy.recommend(new_items={"88": {}})
    with pytest.raises(ValueError, match="policy must score arms by their features to score pairs"):
        policy.score_pairs([[1.0]], [[1.0]])


def test_many_decisions_are_refused_by_row():
    policy, repeated = make_policy(THETA), [["5", "9"], ["5", "5"]]
    with pytest.raises(ValueError, match=r"row 1: candidates must be different from each other, got \['5'[, ]+'5'\]"):
        policy.decide(USERS, repeated)
    assert policy.decide(USERS, repeated, [[True, True], [True, False]]).action.tolist() == [1, 0]
    with pytest.raises(ValueError, match="row 0: mask must be True for an action"):
        policy.decide(CONTEXT, [["5", "9"]], [[False, False]])
    with pytest.raises(KeyError, match="unknown item ids: 11, 12"):
        policy.decide(USERS, [["12", "5"], ["5", 11]])
    with pytest.raises(ValueError, match=r"shape of candidates must be \[1, k\], got \[1\]"):
        policy.decide(CONTEXT, ["5"])
    with pytest.raises(ValueError, match="context must be a table of raw columns, got 'list'"):
        policy.decide([30])
    with pytest.raises(ValueError, match=r"shape of mask must be \[2, 3\], got \[2\]"):
        policy.scores(USERS, mask=[True, False])
    with pytest.raises(ValueError, match="row 1: column 'activity' must be a finite number, got inf"):
        policy.scores(USERS.assign(activity=[1.0, np.inf]))


def test_large_tables_are_scored_in_parts(monkeypatch):
    policy, contexts = make_policy(THETA), pd.concat([USERS] * 50)
    all_scores = policy.scores(contexts)
    candidate_ids = np.array([["5", "7"], ["9", "5"]] * 50)
    candidate_scores = policy.scores(contexts, candidate_ids)
    monkeypatch.setattr(served, "_PAIRS", 20)
    np.testing.assert_array_equal(policy.scores(contexts), all_scores)
    np.testing.assert_array_equal(policy.scores(contexts, candidate_ids), candidate_scores)
    np.testing.assert_array_equal(candidate_scores[:2], [all_scores[0, [1, 2]], all_scores[1, [0, 1]]])


def test_scores_that_overflow_are_refused():
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=r"scores must be finite .*, got inf"):
        make_policy([[1e38, 0.0, 0.0]]).recommend({"activity": 1e30})


def test_greedy_is_sure_of_the_first_best_available_arm():
    scores = np.array([[1.0, 3.0, 3.0], [5.0, 1.0, 2.0]])
    mask = np.array([[True, True, True], [False, True, True]])
    np.testing.assert_array_equal(greedy(scores, mask), [[0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("exploration", "message"),
    [
        (("ucb", 1.0), "exploration must be one of greedy, epsilon_greedy, softmax, inverse_gap, plackett_luce, got"),
        (("epsilon_greedy", 1.5), r"epsilon must be in \[0, 1\], got 1.5"),
        (("softmax", "1"), "value of softmax must be a number, got '1'"),
    ],
)
def test_explorations_are_refused_where_they_are_made(exploration, message):
    with pytest.raises(ValueError, match=message):
        Exploration(*exploration)


def test_what_an_exploration_holds_fits_into_json():
    assert json.dumps(Exploration("epsilon_greedy", np.float32(0.25)).value) == "0.25"
    assert Exploration("greedy", float("nan")) == Exploration()
