"""A session of the playground: its numbers are those of the package, and both agents meet the same users."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from playground.catalogue import CANDIDATES, Catalogue
from playground.learner import AGENTS, Settings
from playground.pictures import view
from playground.session import FEWEST, GREEDY, ORACLE, UNIFORM, Session
from recbandits.agents.linear import arm_inputs
from recbandits.evaluation import cross_fit, evaluate, regret
from recbandits.training import simulate

ALL = {agent: Settings(agent, exploration_rate=0.2) for agent in AGENTS}


@pytest.fixture(scope="module")
def catalogue(movielens):
    return Catalogue(movielens)


@pytest.fixture(scope="module")
def agents(catalogue):
    """A session with every agent, which tests restart."""
    return Session(catalogue, ALL)


@pytest.fixture
def session(agents):
    agents.noise = 0.5
    agents.choose_user(None)
    agents.restart(3)
    return agents


@pytest.mark.parametrize("label", AGENTS)
def test_propensities_are_those_of_epsilon_greedy_and_sum_to_one(session, label):
    """With exploration rate 0.2 and 8 candidates, the best has 1 - 0.2 + 0.2 / 8 = 0.825, the others 0.025."""
    session.play(20)
    table = session.candidates(label)
    assert np.isclose(table["propensity"].sum(), 1)
    np.testing.assert_allclose(sorted(table["propensity"]), [0.025] * 7 + [0.825], rtol=1e-5)
    assert set(session.log(label).propensity.round(4)) <= {0.025, 0.825, 0.125}  # 1 / 8 before there is an estimate


@pytest.mark.parametrize("label", AGENTS)
def test_a_replay_is_the_simulation_of_the_package(catalogue, session, label):
    """The same agent, users, candidates, noise and draws: regret and reward are equal, bit by bit."""
    session.play(1)
    session.play(39)
    environment = catalogue.make_environment()
    simulated = simulate(environment, {label: ALL[label].make(environment, 3)}, 40, [3], points=40)
    runs = session.runs()
    played = runs[runs["agent"] == label].reset_index(drop=True)
    for name in ("regret", "reward", "suboptimal"):
        np.testing.assert_array_equal(played[name].astype("float32"), simulated[name].astype("float32"))
    np.testing.assert_allclose(played["cumulative_regret"], simulated["cumulative_regret"])


def test_all_agents_meet_the_same_users_candidates_and_noise(session):
    session.play(30)
    logs = [session.log(label) for label in AGENTS]
    for log in logs[1:]:
        np.testing.assert_array_equal(log.user_id, logs[0].user_id)
        np.testing.assert_array_equal(log.candidates, logs[0].candidates)
        equal = log.arm == logs[0].arm
        assert 0 < equal.sum() < 30
        np.testing.assert_array_equal(log.reward[equal], logs[0].reward[equal])


def test_the_true_coefficients_give_the_expected_reward_of_every_candidate(catalogue, session):
    batches = session.next_batches(50)
    inputs = arm_inputs({name: part[:, 0] for name, part in batches.observation.items()}).numpy()
    np.testing.assert_allclose(inputs @ catalogue.coefficients().to_numpy(), batches.expected_reward[:, 0], rtol=1e-4)


def test_the_posterior_moves_from_the_prior_to_the_true_coefficients(session):
    prior = session.posterior("LinUCB")
    assert (prior["mean"] == 0).all()
    assert (prior["width"] == 1).all()
    session.play(1000)
    posterior = session.posterior("LinUCB")
    assert (posterior["width"] < 0.6).all()
    assert (posterior["mean"] - posterior["truth"]).abs().max() < 0.6
    assert session.posterior("reward network") is None


def test_a_look_at_the_candidates_changes_nothing(session):
    first, again = session.candidates("LinUCB"), session.candidates("LinUCB")
    pd.testing.assert_frame_equal(first, again)
    session.play(1)
    assert session.log("LinUCB").arm[0] == first.index[first["is_shown"]][0]


def test_a_rating_is_the_reward_of_its_agent_alone(session):
    session.play(1, {"LinUCB": 2.0})
    assert session.log("LinUCB").reward[0] == 2.0
    assert session.log("linear model").reward[0] != 2.0


def test_without_noise_rewards_are_expected_rewards(session):
    session.noise = 0.0
    session.choose_user(None)
    session.play(20)
    decisions = session.learners["LinUCB"].decisions
    np.testing.assert_array_equal(decisions["reward"], decisions["expected"])


def test_an_agent_that_is_changed_has_learnt_the_same_interactions(catalogue):
    changed = Session(catalogue, {"A": Settings(), "B": Settings()}, seed=5)
    changed.play(25)
    before = changed.log("A")
    changed.change("B", Settings("linear model", exploration_rate=0.5))
    direct = Session(catalogue, {"B": Settings("linear model", exploration_rate=0.5)}, seed=5)
    direct.play(25)
    pd.testing.assert_frame_equal(changed.learners["B"].decisions, direct.learners["B"].decisions)
    np.testing.assert_array_equal(changed.log("A").reward, before.reward)


def test_a_chosen_user_makes_the_next_decisions(catalogue, session):
    user = int(catalogue.users.index[41])
    session.play(2)
    session.choose_user(user)
    session.play(3)
    assert session.log("LinUCB").user_id[2:].tolist() == 3 * [user]
    assert session.next_user() == catalogue.users[user]


def test_other_noise_repeats_the_interactions_with_the_users_who_made_them(catalogue, session):
    """Two of random users, of which one is rated, then three of one user, while another user is chosen now."""
    session.play(1, {"LinUCB": 1.0})
    session.play(1)
    session.choose_user(int(catalogue.users.index[41]))
    session.play(3)
    chosen = int(catalogue.users.index[7])
    session.choose_user(chosen)
    before, next_user = session.log("LinUCB"), session.next_user()
    session.change_noise(0.0)
    after, decisions = session.log("LinUCB"), session.learners["LinUCB"].decisions
    np.testing.assert_array_equal(after.user_id, before.user_id)
    np.testing.assert_array_equal(after.candidates, before.candidates)
    np.testing.assert_array_equal(decisions["reward"], decisions["expected"])
    assert (session.user_id, session.next_user()) == (chosen, next_user)


def test_a_described_user_has_the_expected_rewards_of_the_description(catalogue):
    """Movies with 5 stars are expected to be above the others with 1 star, on average."""
    liked, disliked = catalogue.titles.index[:6], catalogue.titles.index[6:12]
    described, user = catalogue.with_user(dict.fromkeys(liked, 5.0) | dict.fromkeys(disliked, 1.0))
    assert user not in catalogue.users
    session, rewards = Session(described, {"A": Settings()}), {}
    session.choose_user(user)
    batches = session.next_batches(600)
    for movies, values in zip(batches.arms.numpy()[:, 0], batches.expected_reward.numpy()[:, 0], strict=True):
        rewards |= dict(zip(catalogue.titles.index[movies], values, strict=True))
    assert np.mean([rewards[movie] for movie in liked]) > np.mean([rewards[movie] for movie in disliked])


def test_estimates_are_those_of_the_package_and_their_truth_is_the_value_of_the_policy(session):
    session.play(200)
    table, log = session.estimates("linear model"), session.log("linear model")
    uniform = evaluate(log, np.full(log.mask.shape, 1 / CANDIDATES))
    for name in ("IPS", "SNIPS"):
        pd.testing.assert_series_equal(
            table.loc[(UNIFORM, name)][uniform.columns], uniform.loc[name], check_names=False
        )
    by_hand = np.mean(log.reward / CANDIDATES / log.propensity)
    assert np.isclose(table.loc[(UNIFORM, "IPS"), "value"], by_hand)
    truth = table["truth"].groupby(level="policy").first()
    assert truth[UNIFORM] < truth[GREEDY] <= truth[ORACLE]
    totals = regret.totals(session.runs())["regret"].droplevel("seed")
    assert np.isclose(truth[ORACLE] - truth[UNIFORM], totals[UNIFORM])
    assert totals[ORACLE] == 0


def test_a_log_without_exploration_has_no_estimates(session):
    """Movies with propensity 0 are not in the log, and no interval accounts for them."""
    session.play(20)
    assert len(view(session, "linear model")["estimates"]["value"]) == 9
    session.change("linear model", Settings("linear model", exploration_rate=0.0))
    assert view(session, "linear model")["estimates"]["value"] == []
    session.change("linear model", ALL["linear model"])


def test_intervals_of_dr_contain_the_value_of_fixed_policies_in_most_logs(session):
    """Of 10 intervals at 95 %, of the policies fixed before the log: at least 8, and none by its width.

    An interval is at least Student's, by hand from the terms of DR. Few decisions of the oracle are in the log, with
    large weights: its intervals are up to 2.6 times as wide, on the side of the long tail; the others by 7 % at most.
    """
    hits, rows = 0, np.arange(100)
    for seed in range(5):
        session.restart(seed)
        batches = session.next_batches(100)
        session.play(100)
        table = session.estimates("linear model").xs("DR", level="estimator").loc[[UNIFORM, ORACLE]]
        hits += ((table["low"] <= table["truth"]) & (table["truth"] <= table["high"])).sum()
        log = session.log("linear model")
        inputs = arm_inputs({name: part[:, 0] for name, part in batches.observation.items()}).numpy()
        q, expected = cross_fit(replace(log, user_id=rows), inputs, folds=FEWEST), batches.expected_reward.numpy()[:, 0]
        best = (expected == expected.max(axis=1, keepdims=True)).astype(float)
        for name, target, widest in ((UNIFORM, np.full(best.shape, 1 / CANDIDATES), 1.2), (ORACLE, best, 3)):
            weight = target[rows, log.action] / log.propensity
            terms = (target * q).sum(axis=1) + weight * (log.reward - q[rows, log.action])
            width = 2 * stats.t.ppf(0.975, 99) * stats.sem(terms)
            assert 0.999 < (table.loc[name, "high"] - table.loc[name, "low"]) / width < widest
    assert hits >= 8


def test_policies_that_take_no_logged_action_have_no_estimates(session):
    """Of `FEWEST` decisions, the estimates of a policy are NaN exactly where all its probabilities of them are 0."""
    supported = []
    for seed in range(6):
        session.restart(seed)
        session.play(FEWEST)
        table, decisions = session.estimates("reward network"), session.learners["reward network"].decisions
        best = session.runs().query("agent == @ORACLE")["reward"].to_numpy()
        supported.append(np.isclose(decisions["reward"].to_numpy(), best).any())
        assert table["value"].notna().loc[ORACLE].all() == supported[-1]
        assert table["value"].notna().loc[UNIFORM].all()
    assert {*supported} == {True, False}
