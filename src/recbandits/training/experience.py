"""Examples as the agents of TF-Agents want them: trajectories of one step."""

from recbandits.tf import tf

from tf_agents.bandits.agents.ranking_agent import CHOSEN_INDEX, CHOSEN_VALUE
from tf_agents.policies import utils
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory
from tf_agents.utils import nest_utils

from recbandits.agents.ranking.slotting import slotted
from recbandits.data.slates import cascading_feedback
from recbandits.environments.base import GLOBAL, PER_ARM


def tensors(agent, examples):
    """What an agent reads of examples.

    Args:
      agent: a TF-Agents agent for arms with features; its reward spec says what kind of feedback it takes.
      examples: Examples, or SlateExamples for an agent that ranks.

    Returns:
      (context [n, G], arm [n, D] or [n, slots, D], reward), float32 tensors; the reward is [n], [n, slots], or for
      cascading feedback a dict of `chosen_index` int32 [n] and `chosen_value` [n].
    """
    reward = tf.constant(examples.reward, tf.float32)
    if isinstance(agent.time_step_spec.reward, dict):
        feedback = cascading_feedback(examples.reward)
        reward = dict(zip((CHOSEN_INDEX, CHOSEN_VALUE), map(tf.constant, feedback), strict=True))
    return tf.constant(examples.context, tf.float32), tf.constant(examples.arm, tf.float32), reward


def gathered(data, rows):
    """The trajectory [batch, 1, ...] of some rows of what `tensors` gives.

    Of a slate the observation has the movies that were shown, in their order: that is the action. Else the features of
    the chosen arm are in the policy info.
    """
    context, arm, reward = tf.nest.map_structure(lambda part: tf.gather(part, rows), data)
    observation, info, action = {GLOBAL: context, PER_ARM: arm}, (), ()
    if arm.shape.rank == 2:
        observation, info = {GLOBAL: context}, utils.PerArmPolicyInfo(chosen_arm_features=arm)
        action = tf.zeros_like(reward, tf.int32)
    experience = trajectory.single_step(observation, action, info, reward, tf.ones_like(context[:, 0]))
    return tf.nest.map_structure(lambda part: tf.expand_dims(part, 1), experience)


def first_step(environment, observation):
    """The time step of a bandit with this observation [batch, ...]: every interaction is the first of its episode."""
    size, spec = environment.batch_size, environment.time_step_spec()
    reward = tf.nest.map_structure(lambda part: tf.zeros([size, *part.shape], part.dtype), spec.reward)
    return ts.TimeStep(tf.fill([size], ts.StepType.FIRST), reward, tf.ones([size]), observation)


def of_decision(agent, observation, decision, feedback):
    """The trajectory [batch, 1, ...] of a decision just made, without what training does not read.

    Args:
      agent: TF-Agents agent.
      observation: what the policy saw, [batch, ...].
      decision: `PolicyStep` of the policy; where its action is a slate, the observation becomes that of what was shown.
      feedback: what came of it, [batch, ...], as the reward spec says.
    """
    if decision.action.shape.rank == 2:
        observation = slotted(observation, decision.action)
    discount = tf.ones_like(tf.nest.flatten(observation)[0][:, 0])
    experience = trajectory.single_step(observation, decision.action, decision.info, feedback, discount)
    experience = nest_utils.prune_extra_keys(agent.training_data_spec, experience)
    # A reshape and its inverse cancel in the graph, where an expanded dimension would stay.
    return tf.nest.map_structure(lambda tensor: tf.reshape(tensor, [tensor.shape[0], 1, *tensor.shape[1:]]), experience)
