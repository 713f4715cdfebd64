"""Experience that agents are trained on: TF-Agents trajectories [batch, 1, ...] of examples and of decisions."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from recbandits.tf import tf

import numpy as np
from tf_agents.agents.tf_agent import TFAgent
from tf_agents.bandits.agents.ranking_agent import CHOSEN_INDEX, CHOSEN_VALUE
from tf_agents.policies.utils import PerArmPolicyInfo
from tf_agents.trajectories.policy_step import PolicyStep
from tf_agents.trajectories.trajectory import Trajectory
from tf_agents.utils import nest_utils

from recbandits.agents.ranking.policy import slotted
from recbandits.checks import FINITE, POSITIVE_PROBABILITY, require, require_rows, require_shape
from recbandits.data.examples import Examples
from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.data.slates import SlateExamples, cascading_feedback
from recbandits.data.trajectories import make_trajectory


def convert_examples(agent: TFAgent, examples: Examples | SlateExamples) -> Trajectory:
    """Make the experience of all examples, a batch of n, from which `gather_rows` takes the batches of a training.

    Of a slate the observation has the movies that were shown, in their order. Else the features of the chosen arm are
    in the policy info, and the action, which agents for arms with features do not read, is 0. Returns a trajectory [n,
    1, ...] of float32; the reward is [n, 1], [n, 1, slots], or for an agent whose reward spec is cascading a dict of
    `chosen_index` int32 [n, 1] and `chosen_value` [n, 1].
    """
    context, arm, reward = (tf.constant(part, tf.float32) for part in examples[:3])
    if isinstance(agent.time_step_spec.reward, dict):
        index, value = map(tf.constant, cascading_feedback(examples.reward))
        reward = {CHOSEN_INDEX: index, CHOSEN_VALUE: value}
    if arm.shape.rank == 3:
        return make_trajectory({GLOBAL: context, PER_ARM: arm}, (), (), reward)
    info = PerArmPolicyInfo(chosen_arm_features=arm)
    return make_trajectory({GLOBAL: context}, tf.zeros_like(reward, tf.int32), info, reward)


def convert_decision(agent: TFAgent, observation: Any, decision: PolicyStep, feedback: Any) -> Trajectory:
    """Make the experience [batch, 1, ...] of decisions, with those parts alone that the agent is trained on.

    Observation and feedback are nests [batch, ...], as the specs of the environment say. Where the action is a slate,
    the observation becomes that of its items.
    """
    if decision.action.shape.rank == 2:
        observation = slotted(observation, decision.action)
    experience = make_trajectory(observation, decision.action, decision.info, feedback)
    return nest_utils.prune_extra_keys(agent.training_data_spec, experience)


@contextlib.contextmanager
def explain_errors(describe: Callable[[], str]) -> Iterator[None]:
    """Raise FloatingPointError, in one sentence after a description of the place, where a graph refuses a value."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        sentence = error.message.partition("\n\t [[")[0].splitlines()[-1]  # after the names of operations
        raise FloatingPointError(f"{describe()}: {sentence.partition(' : Tensor had ')[0]}") from error


def check_examples(agent: TFAgent, name: str, examples: Examples | SlateExamples) -> None:
    """Check that an agent for arms with features can be trained on examples, which are named in errors.

    ValueError for examples of another kind or shape than the agent's, none, or a value outside its range.
    """
    features, slots = agent.time_step_spec.observation, tuple(agent.action_spec.shape)
    kind, task = (SlateExamples, "ranks") if slots else (Examples, "chooses one arm")
    require(isinstance(examples, kind), name, f"{kind.__name__} for an agent that {task}", type(examples).__name__)
    rows = len(examples.context)
    require(rows > 0, name, "of at least one row", rows)
    # events of another type would be rounded beside those that the agent keeps
    require(examples.event.dtype == np.int64, f"{name}: event", "int64", examples.event.dtype)
    context, arm = (features[part].shape[-1] for part in (GLOBAL, PER_ARM))
    shapes = {"context": (rows, context), "arm": (rows, *slots, arm), "reward": (rows, *slots)}
    for field, values in examples._asdict().items():
        shape = shapes.get(field, (rows,))
        require_shape(values, f"{field} of {name}", *shape)
        rule = POSITIVE_PROBABILITY if field in ("propensity", "pass_prob") else FINITE
        require_rows(rule.holds(values), f"{field} of {name}", rule.expected, values)
    cascading = isinstance(agent.time_step_spec.reward, dict) and slots[0] > 1
    if cascading and not (examples.reward <= 0).any():  # ratings have no 0, and each first movie would be the click
        raise ValueError(f"{name}: reward must be 0 where nothing was clicked, for cascading feedback, got no 0")


def check_new_events(agent: TFAgent, event: np.ndarray) -> None:
    """Raise ValueError for an event int64 [n] that occurs twice, or that a linear model has learnt before."""
    events, counts = np.unique(event, return_counts=True)
    if (counts > 1).any():
        first, second = np.flatnonzero(event == events[counts > 1][0])[:2]
        raise ValueError(f"examples must be of different events, rows {first} and {second} are of the same one")
    again = int(np.isin(events, agent.learned_events.numpy()).sum())
    expected = "new to a linear model, or its confidence widths become too narrow"
    require(again == 0, "examples", expected, f"{again} of {len(events)} events that it has learnt before")
