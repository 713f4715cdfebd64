"""The contract of all environments; a subclass supplies `make()` and an action."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.trajectories import time_step as ts

from recbandits.environments import base


def same(first, second):
    """Return whether two nests hold equal numbers, None left out."""
    pairs = zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True)
    return all(a is b is None or np.array_equal(a, b) for a, b in pairs)


class SeededEnvironmentContract:
    def make(self, **options):
        raise NotImplementedError

    def action(self, environment):
        """Return one action for each user of a batch."""
        raise NotImplementedError

    def variants(self):
        """Return environments with all kinds of time steps."""
        raise NotImplementedError

    def test_it_is_a_tf_agents_environment_whose_time_steps_fit_their_spec(self):
        for environment in self.variants():
            assert isinstance(environment, tf_environment.TFEnvironment)
            steps = environment.reset(), environment.step(self.action(environment))
            for time_step, kind in zip(steps, (ts.StepType.FIRST, ts.StepType.LAST), strict=True):
                spec = environment.time_step_spec()
                tf.nest.assert_same_structure(time_step, spec)
                for tensor, part in zip(tf.nest.flatten(time_step), tf.nest.flatten(spec), strict=True):
                    assert (tensor.shape, tensor.dtype) == ([environment.batch_size, *part.shape], part.dtype)
                assert np.all(time_step.step_type == kind)

    def test_batch_and_respond_do_not_change_the_state(self):
        environment = self.make(batch_size=50)
        batch, action = environment.batch(), self.action(environment)
        assert same(environment.respond(batch, action), environment.respond(batch, action))
        assert same(environment.batch(), batch)

    def test_advance_changes_the_users_and_restart_returns_to_the_first(self):
        environment = self.make(batch_size=50)
        first = environment.batch()
        environment.advance()
        assert not same(first.observation, environment.batch().observation)
        environment.restart(0)
        assert same(first, environment.batch())
        environment.restart(1)
        assert not same(first.observation, environment.batch().observation)

    def test_what_is_no_seed_or_step_is_refused_and_changes_nothing(self):
        environment = self.make()
        environment.restart(3, 2)
        for name, arguments in (("seed", (-1,)), ("seed", (1.5, 1)), ("seed", (2**63,)), ("step", (1, -1))):
            with pytest.raises(ValueError, match=f"^{name} must be a whole number"):
                environment.restart(*arguments)
        assert [int(variable) for variable in environment.state] == [3, 2]

    def test_a_step_gives_the_feedback_of_the_response_and_the_next_batch(self):
        environment = self.make()
        environment.reset()
        action = self.action(environment)
        response = environment.respond(environment.batch(), action)
        time_step = environment.step(action)
        assert same(time_step.reward, response.feedback)
        assert same(time_step.observation, environment.batch().observation)

    def test_the_current_time_step_has_the_users_of_the_current_batch(self):
        """A driver that goes on after restart() or advance() must see the users whom its next action serves."""
        environment = self.make()
        environment.reset()
        environment.restart(5)
        assert same(environment.current_time_step().observation, environment.batch().observation)
        environment.step(self.action(environment))
        environment.advance()
        assert same(environment.current_time_step().observation, environment.batch().observation)

    def test_no_two_seeds_steps_or_purposes_share_a_stream(self):
        environment, streams = self.make(), set()
        for seed in range(3):
            for step in range(3):
                environment.restart(seed, step)
                purposes = base.USERS, base.ARMS, base.NOISE, base.MASK
                streams |= {tuple(environment.stream(purpose).numpy()) for purpose in purposes}
        assert len(streams) == 3 * 3 * 4

    def test_it_runs_inside_a_graph_as_outside(self):
        environment = self.make()
        action = self.action(environment)

        @tf.function
        def three_steps():
            total = tf.zeros_like(environment.respond(environment.batch(), action).feedback)
            for _ in tf.range(3):
                total += environment.step(action).reward
            return total

        environment.reset()
        eager = sum(environment.step(action).reward for _ in range(3))
        environment.restart(0)
        np.testing.assert_allclose(three_steps(), eager, rtol=1e-5)
