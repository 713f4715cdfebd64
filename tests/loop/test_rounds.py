"""The closed loop improves, recovers from drift, and stops poisoned candidates and broken policies."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

from recbandits.tf import tf

import numpy as np
import pandas as pd
import pytest
from true_policies import policy

from recbandits.loop.gate import probabilities_of
from recbandits.loop.rounds import Loop, by_learner, gain, run_rounds
from recbandits.loop.settings import Guardrail, Settings
from recbandits.loop.simulated_users import STARS

# Fewer movies and factors than the defaults, so that fewer decisions suffice to learn.
SETTINGS = Settings(STARS, movies=30, rank=4, decisions=1000, guardrail=Guardrail(canary=30, least=50, most=500))


NUMBERS = ("kind", "version", "against", "why", "difference", "low", "high", "effective_sample_size")


@pytest.fixture(scope="module")
def runs(users):
    return run_rounds(users, [0] * 6, SETTINGS, seeds=range(3), learners=("learning", "frozen"))


@pytest.fixture(scope="module")
def drifted(users):
    """Preferences drift before the third re-training."""
    learners = "forgetting", "frozen"
    return run_rounds(users, [0, 0, 1, 1, 1, 1], SETTINGS, seeds=range(3), learners=learners)


def test_the_last_served_policy_is_better_than_the_first(runs):
    """Five re-trainings, three seeds, true values on the same visits: the 95 % interval of the gain excludes zero."""
    assert gain(runs).low > 0
    assert gain(runs, against="frozen").low > 0


def test_loops_in_two_threads_give_the_same_as_one_after_the_other(users):
    """They leave TensorFlow's setting, which is one for all threads, as it was."""
    arguments, learners = (users, [0, 0], SETTINGS), ["learning"]
    with ThreadPoolExecutor(2) as threads:
        parts = [threads.submit(run_rounds, *arguments, seeds=[seed], learners=learners) for seed in (0, 1)]
    assert not tf.config.functions_run_eagerly()
    expected = run_rounds(*arguments, seeds=[0, 1], learners=learners)
    pd.testing.assert_frame_equal(pd.concat([part.result() for part in parts], ignore_index=True), expected)


def test_no_policy_is_better_than_the_oracle_or_worse_than_chance(runs):
    assert (runs["value"] < runs["oracle"]).all()
    assert (runs["value"] > runs["uniform"]).all()


def test_learners_of_one_seed_begin_with_the_same_policy_and_the_frozen_one_keeps_it(runs):
    first_versions = runs[runs["round"] == 0].groupby("seed")["version"].nunique()
    frozen_versions = runs[runs["learner"] == "frozen"].groupby("seed")["version"].nunique()
    assert (first_versions == 1).all()
    assert (frozen_versions == 1).all()


def test_the_forgetting_loop_recovers_from_drift_and_the_frozen_policy_does_not(drifted):
    """All drop with the drift; at the end the loop that forgets is back above, the frozen policy is not."""
    values = by_learner(drifted).pivot(index="round", columns="learner", values="value")
    assert values["frozen"][2] < values["frozen"][1]
    assert gain(drifted, "forgetting", against="frozen").low > 0
    assert values["forgetting"][5] > values["forgetting"][2] + 0.05
    assert values["frozen"][5] == pytest.approx(values["frozen"][2])


def test_runs_are_the_same_when_run_again(users, runs):
    repeated = run_rounds(users, [0] * 3, SETTINGS, seeds=[1], learners=("learning",))
    part = runs[(runs["seed"] == 1) & (runs["learner"] == "learning") & (runs["round"] <= 2)]
    pd.testing.assert_frame_equal(repeated, part.reset_index(drop=True), check_dtype=False)


def test_a_candidate_that_learnt_from_poisoned_rewards_is_stopped_by_the_gate(users):
    """6 - reward in training, the truth in what is held out: users never meet it, and the next candidate serves."""
    loop = Loop(users, SETTINGS)
    loop.begin()
    before = loop.endpoint.traffic_split
    loop.serve()
    candidate = loop.learn(lambda log: dataclasses.replace(log, reward=6.0 - log.reward))
    judgement = loop.judge(candidate)
    verdict = loop.release(candidate, judgement)
    assert verdict.kind in ("held", "refused")
    assert judgement.low < -judgement.margin
    assert loop.endpoint.traffic_split == before
    candidate = loop.learn()
    assert loop.release(candidate, loop.judge(candidate)).kind == "deployed"


def test_a_candidate_before_the_first_policy_has_nothing_to_be_judged_against(users):
    loop = Loop(users, SETTINGS)
    with pytest.raises(ValueError, match="a candidate is judged against what serves, and nothing serves yet"):
        loop.judge(None)


def test_a_deployed_policy_that_turns_bad_is_rolled_back_by_the_guardrail(users):
    """It passed the gate, was promoted, and then decides the opposite, as by features that were mixed up."""
    loop = Loop(users, dataclasses.replace(SETTINGS, guardrail=Guardrail(canary=30, holdback=20, least=50, most=500)))
    first = loop.begin().version
    loop.serve()
    candidate = loop.learn()
    assert loop.release(candidate, loop.judge(candidate)).kind == "deployed"
    verdicts = loop.serve()
    assert [verdict.kind for verdict in verdicts][-1] == "promoted"
    loop.endpoint.policies[candidate.version] = policy(users, -5.0)
    for _ in range(5):
        verdicts = loop.serve()
        if verdicts:
            break
    assert [(verdict.kind, verdict.version, verdict.against) for verdict in verdicts] == [
        ("rolled back", candidate.policy.version, first)
    ]
    assert loop.serving().policy.version == first


def test_each_decision_is_logged_once_with_its_propensity(users):
    """The warehouse has every decision once, with the propensity of the version that decided."""
    loop = Loop(users, SETTINGS)
    loop.begin()
    loop.serve()
    counts = loop.warehouse.counts(loop.now.replace(year=2025), loop.now, SETTINGS.join)
    assert counts.joined + counts.defaulted == SETTINGS.first + SETTINGS.decisions
    log = loop.learn().held_out
    probabilities = probabilities_of(loop.serving().policy, log)
    np.testing.assert_allclose(probabilities[np.arange(len(log)), log.action], log.propensity, rtol=1e-5)  # float32


def test_a_round_of_the_core_is_the_same_as_its_parts(users):
    """Learning, judging and deploying by hand, on all that was logged, gives the verdict of the core's plan."""
    verdicts = []
    for by_core in (True, False):
        loop = Loop(users, SETTINGS)
        loop.begin()
        loop.serve()
        if by_core:
            verdicts.append(loop.retrain_now())
        else:
            candidate = loop.learn()
            verdicts.append(loop.release(candidate, loop.judge(candidate)))
    assert verdicts[0].kind == "deployed"
    assert [getattr(verdicts[0], name) for name in NUMBERS] == [getattr(verdicts[1], name) for name in NUMBERS]


def test_while_a_canary_waits_for_its_verdict_nothing_is_trained(users):
    loop = Loop(users, dataclasses.replace(SETTINGS, guardrail=Guardrail(canary=30, least=9000, most=9000)))
    loop.begin()
    loop.serve()
    assert loop.retrain_now().kind == "deployed"
    loop.serve()
    assert loop.retrain_now() is None


def test_visitors_without_an_id_are_split_by_the_shares(users):
    """4,000 visits of which a third of the draws would go to the canary at 30 %: four standard errors are 0.03."""
    loop = Loop(users, SETTINGS)
    loop.begin()
    first = loop.serving().policy
    loop.endpoint.deploy(policy(users), 30)
    rows, items = users.visits(4000, np.random.default_rng(0))
    requests = users.contexts(rows), users.candidate_ids(items)
    versions, _, _ = loop.endpoint.decide([None] * 4000, *requests, np.random.default_rng(1).random(4000))
    assert (versions != first.version).mean() == pytest.approx(0.3, abs=0.03)
