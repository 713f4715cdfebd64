"""Specs, observations and experience for the tests of ranking agents."""

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from recbandits.agents.agent import GLOBAL, PER_ARM
from recbandits.agents.ranking.policy import slotted


class Specs:
    """The specs of an environment: 3 features of users, 4 of items."""

    def __init__(self, items=5, slots=3, feedback="score_vector", context=3, arm=4):
        self.shapes = {GLOBAL: [context], PER_ARM: [items, arm]}
        self.items, self.slots = items, slots
        self.reward = tensor_spec.TensorSpec([slots], tf.float32)
        if feedback == "cascading":
            self.reward = {
                "chosen_index": tensor_spec.TensorSpec([], tf.int32),
                "chosen_value": tensor_spec.TensorSpec([], tf.float32),
            }

    def time_step_spec(self):
        spec = {name: tensor_spec.TensorSpec(shape, tf.float32, name) for name, shape in self.shapes.items()}
        return ts.time_step_spec(spec, self.reward)

    def action_spec(self):
        return tensor_spec.BoundedTensorSpec([self.slots], tf.int32, 0, self.items - 1)

    def observation(self, n, seed=0):
        generator = np.random.default_rng(seed)
        shapes = self.shapes.items()
        return {name: tf.constant(generator.normal(size=(n, *shape)), tf.float32) for name, shape in shapes}

    def time_step(self, observation):
        return ts.restart(observation, len(observation[GLOBAL]), self.reward)


def experience(observation, slate, feedback):
    """Return the trajectory [batch, 1, ...] of the items shown and the feedback on them."""
    observation = slotted(observation, slate)
    single = trajectory.single_step(observation, (), (), feedback, tf.ones_like(observation[GLOBAL][:, 0]))
    return tf.nest.map_structure(lambda part: tf.expand_dims(part, 1), single)
