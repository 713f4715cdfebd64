"""EXP3 over agents: which of several agents should be listened to is itself a bandit problem."""

from recbandits.tf import tf

import tensorflow_probability as tfp
from tf_agents.bandits.agents import mixture_agent
from tf_agents.bandits.policies import mixture_policy

from recbandits.agents.policy import no_probabilities


class Exp3MixtureAgent(mixture_agent.MixtureAgent):
    """TF-Agents' mixture (each interaction is decided by one agent and teaches that agent) with the weights of EXP3.

    With K agents and gains G_k that estimate what agent k would have earned, agent k is asked with probability
    p_k = (1 - gamma) softmax(gamma G / K)_k + gamma / K, and G_k grows by reward / p_k when k was asked (Auer et al.
    2002, "The Nonstochastic Multiarmed Bandit Problem", figure 1). TF-Agents' own EXP3 agent takes the larger where
    its text promises the smaller of two temperatures, so that its weights hardly move.

    Args:
      agents: the agents to mix, with equal specs.
      draws: `seeds.SeedStream`.
      gamma: share of uniform exploration over agents, in (0, 1].
      reward_range: (lowest, highest) reward, mapped to [0, 1]; rewards outside count as the nearest end.
    """

    def __init__(self, agents, draws, gamma, reward_range):
        tf.Module.__init__(self, name="exp3_mixture")
        self._gamma, self._draws = gamma, draws  # kept here too, where checkpoints and copies look for variables
        self._lowest, self._highest = reward_range
        self.gains = tf.Variable(tf.zeros([len(agents)]), trainable=False, name="gains")
        self.probabilities = tf.Variable(tf.fill([len(agents)], 1.0 / len(agents)), trainable=False, name="p")
        distribution = _SeededCategorical(probs=self.probabilities)
        distribution.draws = draws
        super().__init__(distribution, agents)
        self.policy.probabilities = no_probabilities("the EXP3 mixture")  # which has one policy for both

    def _update_mixture_distribution(self, experience):
        asked = tf.reshape(experience.policy_info[mixture_policy.MIXTURE_AGENT_ID], [-1])
        reward = tf.reshape(experience.reward, [-1])
        reward = tf.clip_by_value((reward - self._lowest) / (self._highest - self._lowest), 0.0, 1.0)
        earned = reward / tf.gather(self.probabilities, asked)
        self.gains.assign_add(tf.reduce_sum(tf.one_hot(asked, self._num_agents) * earned[:, None], axis=0))
        share = self._gamma / self._num_agents
        self.probabilities.assign((1.0 - self._gamma) * tf.nn.softmax(share * self.gains) + share)


class _SeededCategorical(tfp.distributions.Categorical):
    """A categorical distribution that takes its randomness from `draws`, so that a resumed run repeats it."""

    draws = None

    def sample(self, sample_shape=(), seed=None, name="sample", **kwargs):
        """Draw as the base class does, with a seed from `draws` when none is given."""
        seed = tf.cast(self.draws.next(), tf.int32) if seed is None else seed
        return super().sample(sample_shape, seed, name, **kwargs)
