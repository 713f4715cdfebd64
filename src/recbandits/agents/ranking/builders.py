"""How the parameters of each ranking agent become an agent."""

from recbandits.tf import tf

import numpy as np
from tf_agents.bandits.agents.ranking_agent import CHOSEN_INDEX, CHOSEN_VALUE

from recbandits.agents.linear import arm_inputs, scorers
from recbandits.agents.ranking import parameters
from recbandits.agents.ranking.agent import SlateAgent
from recbandits.agents.ranking.linear import CascadingLinearModel
from recbandits.agents.ranking.network import SlateNetwork
from recbandits.agents.ranking.sampling import Sampling
from recbandits.environments.base import GLOBAL, PER_ARM
from recbandits.environments.ranking import RankingEnvironment

_BEST = Sampling()


def _specs(environment):
    """(time_step_spec, action_spec) of an environment of slates, checked."""
    time_step_spec, action_spec = environment.time_step_spec(), environment.action_spec()
    if tf.nest.is_nested(action_spec) or action_spec.shape.rank != 1 or action_spec.dtype != tf.int32:
        raise ValueError(f"actions must be slates, int32 [slots], got {action_spec}")
    items, slots, observation = int(np.max(action_spec.maximum)) + 1, action_spec.shape[0], time_step_spec.observation
    shapes = {name: part.shape.as_list() for name, part in observation.items()} if isinstance(observation, dict) else {}
    sizes = [len(shapes.get(name, [])) for name in (GLOBAL, PER_ARM)]
    if (
        len(shapes) != 2
        or sizes != [1, 2]
        or shapes[PER_ARM][0] != items
        or np.any(action_spec.minimum)
        or items < slots
    ):
        expected = f"{GLOBAL!r} [context] and {PER_ARM!r} [items, features] with as many items as actions say"
        raise ValueError(f"an observation must have {expected}, {items} from 0, and {slots} slots, got {observation}")
    reward = time_step_spec.reward
    if reward.keys() != {CHOSEN_INDEX, CHOSEN_VALUE} if isinstance(reward, dict) else reward.shape != [slots]:
        expected = f"float [{slots}], or a dict of {CHOSEN_INDEX!r} and {CHOSEN_VALUE!r}"
        raise ValueError(f"the reward of a slate must be {expected}, got {reward}")
    return time_step_spec, action_spec


def _ranking(agent, environment, seed):
    specs = _specs(environment)
    model = SlateNetwork(*specs, agent, seed)
    sampling = {
        "no_penalty": Sampling(agent.temperature),
        "cosine_distance": Sampling(agent.temperature, agent.penalty),
        "descending_scores": _BEST,
    }[agent.policy]

    def score(observation, seed):
        return model.scores(observation)

    return SlateAgent(*specs, seed, score, sampling, model=model)


def _cascading(agent, environment, seed):
    specs = _specs(environment)
    size = sum(spec.shape[-1] for spec in specs[0].observation.values())
    model = CascadingLinearModel(size, agent.tikhonov, agent.gamma)

    mean, optimistic = scorers(model, agent.alpha)

    def sampled(observation, seed):
        x = arm_inputs(observation)
        return tf.linalg.matvec(x, model.theta[0] + agent.alpha * model.sample(tf.shape(x)[0], seed))

    if isinstance(agent, parameters.CascadingLinTS):
        return SlateAgent(*specs, seed, mean, _BEST, sampled, model, "CascadingLinTS")
    return SlateAgent(*specs, seed, mean, _BEST, optimistic, model)


def _random(agent, environment, seed):
    def score(observation, seed):
        return tf.zeros(tf.shape(observation[PER_ARM])[:2])

    return SlateAgent(*_specs(environment), seed, score, Sampling(temperature=1.0), serves_chance=True)


def _popularity(agent, environment, seed):
    return _baseline(agent, environment, seed, lambda batch: batch.baselines["popularity"])


def _als(agent, environment, seed):
    if "als" not in _ours(agent, environment).batch().baselines:
        raise ValueError("AlsRanking needs an environment with a factorization, which predicts ratings")
    return _baseline(agent, environment, seed, lambda batch: batch.baselines["als"])


def _optimal(agent, environment, seed):
    return _baseline(agent, environment, seed, lambda batch: batch.attraction)


def _baseline(agent, environment, seed, read):
    _ours(agent, environment)

    def score(observation, seed):
        return tf.cast(read(environment.batch()), tf.float32)

    return SlateAgent(*_specs(environment), seed, score, _BEST)


def _ours(agent, environment):
    if not isinstance(environment, RankingEnvironment):
        name = type(agent).__name__
        raise ValueError(
            f"{name} needs a ranking environment of recbandits, which knows its items, got {environment!r}"
        )
    return environment


BUILDERS = {
    parameters.Ranking: _ranking,
    parameters.CascadingLinUCB: _cascading,
    parameters.CascadingLinTS: _cascading,
    parameters.RandomRanking: _random,
    parameters.PopularityRanking: _popularity,
    parameters.AlsRanking: _als,
    parameters.OptimalRanking: _optimal,
}
