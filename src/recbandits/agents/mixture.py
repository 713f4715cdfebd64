"""EXP3 over agents: the choice of the agent that decides is itself a bandit problem."""

from collections.abc import Sequence

from recbandits.tf import tf

import tensorflow_probability as tfp
from tf_agents.bandits.agents import mixture_agent
from tf_agents.bandits.policies import mixture_policy

from recbandits.agents.agent import SeedStream, raise_no_propensities


class Exp3MixtureAgent(mixture_agent.MixtureAgent):
    """TF-Agents' mixture (one agent decides each interaction and learns from it) with the weights of EXP3.

    With K agents and gains G_k that estimate the sum of rewards that agent k would have had, agent k is chosen with
    probability p_k = (1 - gamma) softmax(gamma G / K)_k + gamma / K, and G_k grows by reward / p_k when k was chosen
    (Auer et al. 2002, "The Nonstochastic Multiarmed Bandit Problem", figure 1). TF-Agents' own EXP3 agent takes the
    larger where its text promises the smaller of two temperatures, so that its weights move little. The agents have
    equal specs; `reward_range` (lowest, highest) is mapped to [0, 1], and rewards outside count as the nearest end.
    """

    def __init__(self, agents: Sequence, seeds: SeedStream, gamma: float, reward_range: tuple[float, float]):
        tf.Module.__init__(self, name="exp3_mixture")
        self._gamma, self._seeds = gamma, seeds  # kept here too, where checkpoints and copies look for variables
        self._lowest, self._highest = reward_range
        self.gains = tf.Variable(tf.zeros([len(agents)]), trainable=False, name="gains")
        self.probabilities = tf.Variable(tf.fill([len(agents)], 1.0 / len(agents)), trainable=False, name="p")
        distribution = _SeededCategorical(probs=self.probabilities)
        distribution.seeds = seeds
        super().__init__(distribution, agents)
        # the one policy for serving and collecting
        self.policy.probabilities = lambda observation: raise_no_propensities("the EXP3 mixture")

    def _update_mixture_distribution(self, experience):
        agent = tf.reshape(experience.policy_info[mixture_policy.MIXTURE_AGENT_ID], [-1])
        reward = tf.reshape(experience.reward, [-1])
        reward = tf.clip_by_value((reward - self._lowest) / (self._highest - self._lowest), 0.0, 1.0)
        gain = reward / tf.gather(self.probabilities, agent)
        self.gains.assign_add(tf.reduce_sum(tf.one_hot(agent, self._num_agents) * gain[:, None], axis=0))
        share = self._gamma / self._num_agents
        self.probabilities.assign((1.0 - self._gamma) * tf.nn.softmax(share * self.gains) + share)


class _SeededCategorical(tfp.distributions.Categorical):
    """A categorical distribution that takes its seeds from a stream, so that a run that resumes repeats its draws."""

    seeds: SeedStream

    def sample(self, sample_shape=(), seed=None, name="sample", **kwargs):
        """Draw as the base class does, with a seed of the stream when none is given."""
        seed = tf.cast(self.seeds.next(), tf.int32) if seed is None else seed
        return super().sample(sample_shape, seed, name, **kwargs)
