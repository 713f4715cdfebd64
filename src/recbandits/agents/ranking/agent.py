"""The TF-Agents agent that fills slates: a policy that serves, one that collects, and a model that learns."""

from recbandits.tf import tf

from tf_agents.agents import tf_agent
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from recbandits.agents.agent import counter
from recbandits.agents.ranking.policy import SlatePolicy
from recbandits.agents.ranking.slotting import slotted_spec
from recbandits.agents.seeds import SeedStream


class SlateAgent(tf_agent.TFAgent):
    """Serve slates without chance, collect with exploration, learn from what was shown.

    It is trained as TF-Agents' `RankingAgent` is: on trajectories [batch, 1, ...] whose observation is the one of
    `slotting.slotted`, whose action and policy info are (), and whose reward is what the environment gave.

    Args:
      time_step_spec: of the environment, with the spec of its reward.
      action_spec: of the environment, int32 [slots].
      seed: of the draws; serving and collecting have a stream each.
      score: function of (observation, seed) giving the scores by which to serve, float [batch, items].
      sampling: `Sampling` by which slates are collected; those that are served take the best of it.
      collect_score: as `score`, for collecting; default: `score`.
      model: tf.Module with the variables that the functions read, `learn(experience, weights)`, `loss` likewise, and
        `scorer()`; None for an agent that does not learn.
      random_scores: where the scores by which to collect are drawn at random, the name of who draws them.
      serves_chance: whether serving draws as collecting does.

    Attributes:
      learned_events: int64 variable [n], hashes of the logged events from which it learnt what may be learnt only once.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        seed,
        score,
        sampling,
        collect_score=None,
        model=None,
        random_scores=None,
        serves_chance=False,
    ):
        tf.Module.__init__(self, name=type(self).__name__)
        self.model = model
        self.learned_events = tf.Variable(tf.zeros([0], tf.int64), trainable=False, shape=[None], name="learned_events")
        collecting, serving = SeedStream(seed, 0), SeedStream(seed, 1)
        read, freeze = ((), None) if model is None else (model.variables, model.scorer)
        policy = SlatePolicy(
            time_step_spec,
            action_spec,
            score,
            serving,
            sampling if serves_chance else sampling.greedy(),
            read,
            freeze=freeze,
        )
        collect = SlatePolicy(
            time_step_spec, action_spec, collect_score or score, collecting, sampling, read, random_scores
        )
        shown = slotted_spec(time_step_spec.observation, action_spec.shape[0])
        shown = ts.time_step_spec(shown, time_step_spec.reward)
        super().__init__(
            time_step_spec,
            action_spec,
            policy,
            collect,
            train_sequence_length=None,
            training_data_spec=trajectory.from_transition(shown, policy_step.PolicyStep(), shown),
            train_step_counter=counter("train_step"),
        )

    def _train(self, experience, weights=None):
        loss = tf.constant(0.0) if self.model is None else self.model.learn(experience, weights)
        self.train_step_counter.assign_add(1)
        return tf_agent.LossInfo(loss, ())

    def _loss(self, experience, weights=None, training=False):
        loss = tf.constant(0.0) if self.model is None else self.model.loss(experience, weights, training)
        return tf_agent.LossInfo(loss, ())

    def _initialize(self):
        """Variables are initialised where they are made."""
