"""Agents by name: a name and its parameters become a TF-Agents agent for an environment."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from recbandits.tf import tf

import numpy as np
from tf_agents.agents import tf_agent
from tf_agents.bandits.agents.ranking_agent import CHOSEN_INDEX, CHOSEN_VALUE

from recbandits import checks, exploration
from recbandits.agents import parameters
from recbandits.agents.agent import GLOBAL, PER_ARM, BanditAgent, ScoringPolicy, SeedStream
from recbandits.agents.linear import arm_inputs, check_specs, make_linear_agent, make_scores
from recbandits.agents.mixture import Exp3MixtureAgent
from recbandits.agents.neural import EncodedLinearModel, RewardNetwork
from recbandits.agents.parameters import NAMES
from recbandits.agents.ranking import parameters as ranking
from recbandits.agents.ranking.models import CascadingLinearModel, SlateNetwork
from recbandits.agents.ranking.parameters import RANKING_NAMES
from recbandits.agents.ranking.policy import SlatePolicy


def make_agent(agent: Any, environment: Any, seed: int = 0, **values: Any) -> tf_agent.TFAgent:
    """Make an agent for an environment.

    Its `policy` serves, `collect_policy` explores, `train` learns, and it has the `parameters`. The EXP3 mixture has
    one policy for both: it always draws the agent that decides. ValueError for an unknown name or parameter, a value
    outside its limits, or an environment that does not fit.

    Args:
      agent: a name of `NAMES` with its parameters in `values`, or parameters such as `LinUCB(alpha=0.5)`; for slates a
        name of `RANKING_NAMES`, or parameters such as `Ranking(temperature=0.5)`. Parameters of your own have a method
        `make(time_step_spec, action_spec, seed)` that returns a TF-Agents agent.
      environment: anything with TF-Agents' `time_step_spec()` and `action_spec()`; the baselines that read more than an
        observation (best fixed arm, oracle, popularity) need an environment of this package. For slates, the spec of
        the reward says whether the feedback is a score vector or cascading.
      seed: of initial weights and exploration.
      **values: parameters by name.
    """
    checks.require_each(checks.SEED, seed=seed)
    if isinstance(agent, str):
        checks.require_each(checks.one_of(_NAMES), agent=agent)
        fields = _NAMES[agent].__dataclass_fields__
        for value in values:
            checks.require(value in fields, f"parameter of {agent}", f"one of {', '.join(fields) or 'none'}", value)
        agent = _NAMES[agent](**values)
    elif values:
        raise ValueError(f"parameters must come with a name, got {agent} and {sorted(values)}")
    elif not hasattr(agent, "make") and type(agent) not in _FACTORIES and type(agent) not in _BASELINES:
        raise ValueError(f"agent must be a name ({', '.join(_NAMES)}) or parameters of one, got {agent!r}")
    specs = environment.time_step_spec(), environment.action_spec()
    observation = specs[0].observation
    for part in tf.nest.flatten(observation[0] if isinstance(observation, tuple) else observation):
        checks.require(part.dtype == tf.float32, "observations", "float32", f"{part.name!r} of {part.dtype.name}")
    if hasattr(agent, "make"):
        bandit_agent = agent.make(*specs, seed)
    elif type(agent) in _BASELINES:
        bandit_agent = _make_baseline(agent, specs, seed, environment)
    else:
        bandit_agent = _FACTORIES[type(agent)](agent, specs, seed)
    bandit_agent.parameters = agent
    return bandit_agent


def _make_linear(agent, specs, seed, number=0):
    thompson = isinstance(agent, parameters.LinTS)
    return make_linear_agent(*specs, **asdict(agent), thompson=thompson, seed=seed, number=number)


def _make_mixture(agent, specs, seed):
    members = [_make_linear(member, specs, seed, number) for number, member in enumerate(agent.agents)]
    return Exp3MixtureAgent(members, SeedStream(seed, 2 * len(members)), agent.gamma, agent.reward_range)


def _make_network(agent, specs, seed):
    model = RewardNetwork(*check_specs(*specs), agent, seed)
    explore_policy = partial(ScoringPolicy, explore=agent.exploration.probabilities)
    return BanditAgent(*specs, seed, model.scores, model=model, make_collect_policy=explore_policy)


def _make_neural_linucb(agent, specs, seed):
    """Make an agent that is epsilon-greedy while its network learns an encoding, and LinUCB on it afterwards."""
    model = EncodedLinearModel(*check_specs(*specs), agent, seed)

    def explore(scores, mask):
        return exploration.epsilon_greedy(scores, mask, tf.where(model.pretraining, agent.epsilon, 0.0))

    explore_policy, scores = partial(ScoringPolicy, explore=explore), make_scores(model.estimate, agent.alpha)
    return BanditAgent(*specs, seed, *scores, model=model, make_collect_policy=explore_policy)


class _UniformPolicy(ScoringPolicy):
    """The arm with the largest of independent uniform scores: all available arms have the same probability."""

    def probabilities(self, observation):
        scores = self.scores(observation, tf.zeros([2], tf.int64))
        return exploration.epsilon_greedy(scores, self._mask(observation), 1.0)


def _make_uniform(agent, specs, seed):
    _, num_arms = check_specs(*specs)

    def score(features, seed):
        return tf.random.stateless_uniform([tf.shape(tf.nest.flatten(features)[0])[0], num_arms], seed)

    return BanditAgent(*specs, seed, score, make_policy=_UniformPolicy, make_collect_policy=_UniformPolicy)


def _make_ranking(agent, specs, seed):
    _check_slate_specs(*specs)
    model = SlateNetwork(*specs, agent, seed)
    sampling = {
        "no_penalty": {"temperature": agent.temperature},
        "cosine_distance": {"temperature": agent.temperature, "penalty": agent.penalty},
        "descending_scores": {"greedy": True},
    }[agent.policy]
    return _make_slate_agent(specs, seed, model.scores, model=model, **sampling)


def _make_cascading(agent, specs, seed):
    _check_slate_specs(*specs)
    size = sum(part.shape[-1] for part in specs[0].observation.values())
    model = CascadingLinearModel(size, 1, agent.tikhonov, agent.gamma)
    score_mean, score_bound = make_scores(lambda observation: model.estimate(arm_inputs(observation)), agent.alpha)

    def score_sample(observation, seed):
        x = arm_inputs(observation)
        return tf.linalg.matvec(x, model.theta[0] + agent.alpha * model.sample(tf.shape(x)[0], seed))

    if isinstance(agent, ranking.CascadingLinTS):
        return _make_slate_agent(specs, seed, score_mean, score_sample, model, "CascadingLinTS", greedy=True)
    return _make_slate_agent(specs, seed, score_mean, score_bound, model, greedy=True)


def _make_random_ranking(agent, specs, seed):
    def score(observation, seed):
        return tf.zeros(tf.shape(observation[PER_ARM])[:2])

    _check_slate_specs(*specs)
    return BanditAgent(*specs, seed, score, make_policy=SlatePolicy, make_collect_policy=SlatePolicy)


def _make_slate_agent(specs, seed, score, collect_score=None, model=None, random_scores=None, **sampling):
    """Make an agent that serves greedily and samples slates when it collects data."""
    return BanditAgent(
        *specs,
        seed,
        score,
        collect_score,
        model=model,
        make_policy=partial(SlatePolicy, **sampling | {"greedy": True}),
        make_collect_policy=partial(SlatePolicy, random_scores=random_scores, **sampling),
    )


def _check_slate_specs(time_step_spec, action_spec):
    """Raise ValueError unless these are specs of an environment of slates."""
    is_slate = not tf.nest.is_nested(action_spec) and action_spec.shape.rank == 1 and action_spec.dtype == tf.int32
    checks.require(is_slate, "actions", "slates, int32 [slots]", action_spec)
    items, slots, observation = int(np.max(action_spec.maximum)) + 1, action_spec.shape[0], time_step_spec.observation
    shapes = {name: part.shape.as_list() for name, part in observation.items()} if isinstance(observation, dict) else {}
    ranks = {name: len(shape) for name, shape in shapes.items()}
    fits = ranks == {GLOBAL: 1, PER_ARM: 2} and shapes[PER_ARM][0] == items and not np.any(action_spec.minimum)
    expected = f"{GLOBAL!r} [context] and {PER_ARM!r} [{items}, features] of at least {slots} items from 0"
    checks.require(fits and slots <= items, "the observation of a slate", expected, observation)
    reward = time_step_spec.reward
    fits = reward.keys() == {CHOSEN_INDEX, CHOSEN_VALUE} if isinstance(reward, dict) else reward.shape == [slots]
    expected = f"float [{slots}], or a dict of {CHOSEN_INDEX!r} and {CHOSEN_VALUE!r}"
    checks.require(fits, "the reward of a slate", expected, reward)


def _make_baseline(agent, specs, seed, environment):
    """Make the agent whose scores are those of `_BASELINES`."""
    name = type(agent).__name__
    checks.require(hasattr(environment, "batch"), f"the environment of {name}", "one of recbandits", environment)

    def score(observation, seed):
        return tf.cast(_BASELINES[type(agent)](environment.batch()), tf.float32)

    if name in ("BestFixedArm", "Oracle"):
        check_specs(*specs)
        return BanditAgent(*specs, seed, score)
    _check_slate_specs(*specs)
    if name == "AlsRanking" and "als" not in environment.batch().baselines:
        raise ValueError("AlsRanking needs an environment with a factorization, which predicts ratings")
    return _make_slate_agent(specs, seed, score, greedy=True)


_BASELINES = {
    parameters.BestFixedArm: lambda batch: batch.unpersonalised,
    parameters.Oracle: lambda batch: batch.expected_reward,
    ranking.PopularityRanking: lambda batch: batch.baselines["popularity"],
    ranking.AlsRanking: lambda batch: batch.baselines["als"],
    ranking.OptimalRanking: lambda batch: batch.attraction,
}
_FACTORIES: dict[type, Callable] = {
    parameters.LinUCB: _make_linear,
    parameters.LinTS: _make_linear,
    parameters.EpsilonGreedy: _make_network,
    parameters.Boltzmann: _make_network,
    parameters.SquareCB: _make_network,
    parameters.NeuralLinUCB: _make_neural_linucb,
    parameters.Exp3Mixture: _make_mixture,
    parameters.Uniform: _make_uniform,
    ranking.Ranking: _make_ranking,
    ranking.CascadingLinUCB: _make_cascading,
    ranking.CascadingLinTS: _make_cascading,
    ranking.RandomRanking: _make_random_ranking,
}
_NAMES: dict[str, Any] = NAMES | RANKING_NAMES
