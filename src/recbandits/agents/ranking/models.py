"""Models that learn from slates: a network trained by TF-Agents' `RankingAgent`, and a linear model of attraction."""

from recbandits.tf import tf

from tf_agents.bandits.agents import ranking_agent
from tf_agents.bandits.agents.ranking_agent import CHOSEN_INDEX, CHOSEN_VALUE
from tf_agents.typing import types

from recbandits.agents.agent import PER_ARM, make_counter
from recbandits.agents.linear import LinearModel, arm_inputs
from recbandits.agents.neural import RewardNetwork
from recbandits.agents.ranking.parameters import Ranking
from recbandits.checks import require


class SlateNetwork(RewardNetwork):
    """A network that scores items, trained on the feedback of whole slates.

    The loss is the squared error of the score of each slot, weighted, divided by the sum of the weights. Under
    cascading feedback slots below the click have weight 0, because the user did not examine them.

    Let e_k be the probability that a user examines slot k, a the attraction of an item, p_k the probability that it is
    in slot k (given that it is in the slate), and w_k = 1 / e_k. Its score with the least expected loss is sum_k p_k
    e_k a for "none"; a / sum_k (p_k / e_k) for "base" and "exponent"; a / (a + 1 - a sum_k p_k e_k) with
    `positive_only`; and a for "inverse_propensity", with a variance that grows like 1 / e_k (Joachims et al. 2017,
    "Unbiased Learning-to-Rank with Biased Feedback", section 4). An item that is always in slot k has e_k a with any
    weights.

    The specs are those of the environment, that of the reward included; the seed is of the initial weights. ValueError
    for a correction that needs another feedback.
    """

    def __init__(
        self, time_step_spec: types.TimeStep, action_spec: types.NestedTensorSpec, parameters: Ranking, seed: int
    ):
        bias, cascading = parameters.position_bias, isinstance(time_step_spec.reward, dict)
        allowed, expected = bias != "inverse_propensity" or not cascading, "another one under cascading feedback"
        require(allowed, "position_bias", f"{expected}, where slots below the click have weight 0 already", bias)

        def make_trainer(features_spec, num_items, network, optimizer):
            return _Trainer(
                parameters.positive_only,
                time_step_spec=time_step_spec,
                action_spec=action_spec,
                scoring_network=network,
                optimizer=optimizer,
                policy_type=ranking_agent.RankingPolicyType.DESCENDING_SCORES,
                feedback_model=ranking_agent.FeedbackModel["CASCADING" if cascading else "SCORE_VECTOR"],
                non_click_score=parameters.non_click_score if cascading else None,
                positional_bias_type=bias if bias in ("base", "exponent") else None,
                positional_bias_severity=parameters.severity,
                enable_summaries=False,
                train_step_counter=make_counter("train_step"),
            )

        features, num_items = time_step_spec.observation, time_step_spec.observation[PER_ARM].shape[0]
        super().__init__(features, num_items, parameters, seed, make_trainer=make_trainer)
        self._examination = None
        if bias == "inverse_propensity":
            self._examination = tf.range(1.0, action_spec.shape[0] + 1.0) ** -parameters.severity

    def learn(self, experience: types.Trajectory, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Take a gradient step on a trajectory [batch, 1, ...] with the observation of `slotted`; return the loss."""
        return self._trainer.train(self._correct_bias(experience), weights).loss

    def loss(self, experience: types.Trajectory, weights: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Return the loss of a batch."""
        return self._trainer.loss(self._correct_bias(experience), weights, training=training).loss

    def _correct_bias(self, experience):
        if self._examination is None:
            return experience
        return experience._replace(reward=experience.reward / self._examination)


class _Trainer(ranking_agent.RankingAgent):
    """TF-Agents' agent with a correction of `positional_bias_positive_only`.

    There the weights of all slots without a positive score become 1: those below a cascading click, which should have
    none, and those of slates that have weights of their own. Here such slots have the weights that they would have
    without a position bias.
    """

    def __init__(self, positive_only, **options):
        super().__init__(**options)
        self._positive_only = positive_only

    def _construct_sample_weights(self, reward, observation, weights):
        biased_weights = super()._construct_sample_weights(reward, observation, weights)
        if not self._positive_only:
            return biased_weights
        slots, severity = tf.range(self._num_slots, dtype=tf.float32), self._positional_bias_severity
        bias = (slots + 1.0) ** severity if self._positional_bias_type == "base" else severity**slots
        is_positive = rewards_by_slot(reward, self._num_slots) > 0
        return tf.where(is_positive, biased_weights, biased_weights / bias)


class CascadingLinearModel(LinearModel):
    """Ridge regression of the clicks on examined slots; arguments as those of `LinearModel`.

    Under cascading feedback those are the slots down to the click, or all without one; the rewards are the value of the
    click and 0 above it (Zong et al. 2016, "Cascading Bandits for Large-Scale Recommendation Problems", algorithm 1).
    A score vector does not say which slots were examined: the model learns from all of them.
    """

    def learn(self, experience: types.Trajectory, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Learn from one batch, and return the mean squared error of the examined slots before the update."""
        x, reward, counts = _read_slots(experience, weights)
        mean = self.update(x, tf.zeros_like(reward, tf.int32), reward, counts)
        return mean * tf.cast(tf.size(reward), mean.dtype) / tf.reduce_sum(counts)

    def loss(self, experience: types.Trajectory, weights: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Return that error without an update."""
        x, reward, counts = _read_slots(experience, weights)
        error = tf.square(reward - tf.linalg.matvec(x, self.theta[0]))
        return tf.reduce_sum(counts * error) / tf.reduce_sum(counts)

    def sample(self, rows: int, seed: tf.Tensor) -> tf.Tensor:
        """Draw deviations from theta, float32 [rows, size], with covariance (A + tikhonov I)^-1, by a seed int [2].

        With the Cholesky factor C of A + tikhonov I they are C^-T z for standard normal z.
        """
        normal = tf.random.stateless_normal([self.factor.shape[2], rows], seed, dtype=tf.float64)
        return tf.matmul(tf.cast(normal, tf.float32), self.factor[0], transpose_a=True)


def rewards_by_slot(feedback: types.NestedTensor, slots: int) -> tf.Tensor:
    """Return the rewards float [batch, slots] of feedback: a score vector itself, or the value of the first click."""
    if not isinstance(feedback, dict):
        return feedback
    return tf.one_hot(feedback[CHOSEN_INDEX], slots) * feedback[CHOSEN_VALUE][:, None]


def _read_slots(experience, weights):
    """Return inputs [n, size], rewards [n] and weights [n] of all slots of a batch."""
    features, reward = tf.nest.map_structure(lambda part: part[:, 0], (experience.observation, experience.reward))
    x = arm_inputs(features)
    slots = x.shape[1]
    counts = tf.ones(tf.shape(x)[:2])
    if isinstance(reward, dict):
        counts = tf.sequence_mask(reward[CHOSEN_INDEX] + 1, slots, tf.float32)
    reward = rewards_by_slot(reward, slots)
    if weights is not None:
        counts *= weights[:, None]
    return tf.reshape(x, [-1, x.shape[2]]), tf.reshape(reward, [-1]), tf.reshape(counts, [-1])
