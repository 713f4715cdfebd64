"""The TF-Agents agent around a model: same specs, same `policy`, `collect_policy` and `train` as TF-Agents' own."""

from recbandits.tf import tf

from tf_agents.agents import tf_agent

from recbandits.agents.policy import ScoringPolicy
from recbandits.agents.seeds import SeedStream
from recbandits.environments.base import GLOBAL, PER_ARM


class BanditAgent(tf_agent.TFAgent):
    """Serve greedily, collect with exploration, learn by one function.

    Args:
      time_step_spec: of the environment.
      action_spec: of the environment.
      seed: of the draws; serving and collecting have a stream each, so that asking the one does not change the other.
      score: function of (features, seed) giving the scores by which to serve, float [batch, arms].
      collect_score: the same for collecting; default: `score`.
      explore: function of (scores, mask) giving probabilities, for collecting only; None takes the best score.
      learn: function of (features, action int32 [batch], reward float [batch], weights float [batch] or None) giving
        the loss; where arms have features, `per_arm` [batch, arm] is that of the chosen arm. None for an agent that
        does not learn. Whatever else `train` is given by name, it is given too.
      model: tf.Module with the variables that the functions read, and `scorer()`, which gives what `score` does as a
        `Scorer`; None for none.
      number: of this agent among those that share a seed.
      marginal: where the scores by which to collect are random themselves, the function of (scores, mask) that gives
        the probabilities of what is drawn all the same, or raises.

    Attributes:
      learned_events: int64 variable [n], hashes of the logged events from which it learnt what may be learnt only once.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        seed,
        score,
        collect_score=None,
        explore=None,
        learn=None,
        model=None,
        number=0,
        marginal=None,
    ):
        tf.Module.__init__(self, name=type(self).__name__)
        self.model, self._learn = model, learn
        self.learned_events = tf.Variable(tf.zeros([0], tf.int64), trainable=False, shape=[None], name="learned_events")
        collecting, serving = SeedStream(seed, 2 * number), SeedStream(seed, 2 * number + 1)
        read, freeze = ((), None) if model is None else (model.variables, model.scorer)
        policy = ScoringPolicy(
            time_step_spec, action_spec, score, serving, None, read, None if collect_score else marginal, freeze
        )
        collect = ScoringPolicy(
            time_step_spec, action_spec, collect_score or score, collecting, explore, read, marginal
        )
        trajectory_spec = collect.trajectory_spec
        super().__init__(
            time_step_spec,
            action_spec,
            policy,
            collect,
            train_sequence_length=None,
            training_data_spec=trajectory_spec._replace(observation=_without_arms(trajectory_spec.observation)),
            train_step_counter=counter("train_step"),
        )

    def _train(self, experience, weights=None, **options):
        loss = tf.constant(0.0)
        if self._learn is not None:
            features = experience.observation
            if self.policy.observation_and_action_constraint_splitter is not None:
                features = features[0]
            if isinstance(features, dict):
                features = {GLOBAL: features[GLOBAL], PER_ARM: experience.policy_info.chosen_arm_features}
            features = tf.nest.map_structure(_merge_time, features)
            action, reward = _merge_time(experience.action), _merge_time(experience.reward)
            loss = self._learn(features, action, reward, weights, **options)
        self.train_step_counter.assign_add(1)
        return tf_agent.LossInfo(loss, ())

    def _initialize(self):
        """Variables are initialised where they are made."""


def counter(name, start=0):
    """Variable of whole numbers that every replica of a `tf.distribute.Strategy` advances alike."""
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(start, dtype=tf.int64, trainable=False, name=name, aggregation=first)


def _without_arms(observation):
    """The part of an observation (or spec) that training reads; the chosen arm's features are in the policy info."""
    if isinstance(observation, tuple):
        return (_without_arms(observation[0]), *observation[1:])
    return {GLOBAL: observation[GLOBAL]} if isinstance(observation, dict) else observation


def _merge_time(tensor):
    """[batch, time, ...] to [batch * time, ...]."""
    return tf.reshape(tensor, [-1, *tensor.shape[2:]])
