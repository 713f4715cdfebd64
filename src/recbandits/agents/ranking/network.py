"""A network that learns from slates, trained by TF-Agents' `RankingAgent`, and what it makes of position bias."""

from recbandits.tf import tf

from tf_agents.bandits.agents import ranking_agent
from tf_agents.bandits.agents.ranking_agent import CHOSEN_INDEX, CHOSEN_VALUE

from recbandits.agents.agent import counter
from recbandits.agents.neural import RewardNetwork
from recbandits.environments.base import PER_ARM


class SlateNetwork(RewardNetwork):
    """A network that scores items, trained on the feedback of whole slates.

    The loss is the squared error of the score of each slot, weighted, divided by the sum of the weights. Under
    cascading feedback slots below the click weigh nothing, because nobody looked at them.

    A user who looks at slot k with probability e_k and then clicks on item x with probability a(x) clicks with
    probability e_k a(x). An item that stands in slot k with probability p_k (given that it is shown) teaches the
    network, which minimises the expected loss,
    - "none": sum_k p_k e_k a / sum_k p_k: what stood low seems unattractive;
    - "base" and "exponent": sum_k p_k w_k e_k a / sum_k p_k w_k. With w_k = 1 / e_k that is a / sum_k (p_k / e_k): the
      shrinkage is larger still, although the lower slots now count as much as the upper ones; an item that has always
      stood in slot k has e_k a whatever its weight;
    - "base" with `positive_only` and w_k = 1 / e_k: a / (a + 1 - a sum_k p_k e_k), which is a for rare clicks;
    - "inverse_propensity", the target click / e_k: sum_k p_k (e_k / e_k) a = a, whatever the slots, at the price of a
      variance that grows like 1 / e_k (inverse propensity weighting: Joachims et al. 2017, "Unbiased
      Learning-to-Rank with Biased Feedback", section 4).

    Args:
      time_step_spec: of the environment, with the spec of its reward.
      action_spec: of the environment, int32 [slots].
      agent: `Ranking`.
      seed: of the initial weights.

    Raises:
      ValueError: a correction that needs another feedback.
    """

    def __init__(self, time_step_spec, action_spec, agent, seed):
        cascading = isinstance(time_step_spec.reward, dict)
        if agent.position_bias == "inverse_propensity" and cascading:
            raise ValueError(
                "position_bias must be another than 'inverse_propensity' under cascading feedback, whose slots below "
                "the click weigh nothing as it is"
            )

        def trainer(network, optimizer):
            return _Trainer(
                agent.positive_only,
                time_step_spec=time_step_spec,
                action_spec=action_spec,
                scoring_network=network,
                optimizer=optimizer,
                policy_type=ranking_agent.RankingPolicyType.DESCENDING_SCORES,
                feedback_model=ranking_agent.FeedbackModel["CASCADING" if cascading else "SCORE_VECTOR"],
                non_click_score=agent.non_click_score if cascading else None,
                positional_bias_type=agent.position_bias if agent.position_bias in ("base", "exponent") else None,
                positional_bias_severity=agent.severity,
                enable_summaries=False,
                train_step_counter=counter("train_step"),
            )

        features, items = time_step_spec.observation, time_step_spec.observation[PER_ARM].shape[0]
        super().__init__(
            features,
            items,
            agent.layers,
            agent.learning_rate,
            agent.weight_decay,
            seed,
            agent.network,
            trainer,
        )
        self._examination = None
        if agent.position_bias == "inverse_propensity":
            self._examination = tf.range(1.0, action_spec.shape[0] + 1.0) ** -agent.severity

    def learn(self, experience, weights=None):
        """One gradient step.

        Args:
          experience: trajectory [batch, 1, ...] whose observation is that of `slotting.slotted`.
          weights: float [batch] of the slates; None for 1.

        Returns:
          The loss of the batch before it was learnt.
        """
        return self._trainer.train(self._corrected(experience), weights).loss

    def loss(self, experience, weights=None, training=False):
        """The loss of a batch, which is not learnt; arguments as those of `learn`."""
        return self._trainer.loss(self._corrected(experience), weights, training=training).loss

    def _corrected(self, experience):
        if self._examination is None:
            return experience
        return experience._replace(reward=experience.reward / self._examination)


class _Trainer(ranking_agent.RankingAgent):
    """TF-Agents' agent with `positional_bias_positive_only` mended.

    There the weights of all slots without a positive score become 1: those below a cascading click, which should have
    none, and those of slates that have weights of their own. Here such slots have the weights that they would have
    without a position bias.
    """

    def __init__(self, positive_only, **options):
        super().__init__(**options)
        self._only_positives = positive_only

    def _construct_sample_weights(self, reward, observation, weights):
        weighed = super()._construct_sample_weights(reward, observation, weights)
        if not self._only_positives:
            return weighed
        slots, severity = tf.range(self._num_slots, dtype=tf.float32), self._positional_bias_severity
        bias = (slots + 1.0) ** severity if self._positional_bias_type == "base" else severity**slots
        return tf.where(self._is_positive(reward), weighed, weighed / bias)

    def _is_positive(self, reward):
        if not isinstance(reward, dict):
            return reward > 0
        clicked = tf.one_hot(reward[CHOSEN_INDEX], self._num_slots, True, False, dtype=tf.bool)
        return clicked & (reward[CHOSEN_VALUE] > 0)[:, None]
