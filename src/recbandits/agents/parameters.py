"""The parameters of agents that choose one arm: names, defaults and limits; importable without TensorFlow."""

from dataclasses import dataclass, field
from typing import ClassVar

from recbandits import checks
from recbandits.exploration import Exploration

NETWORKS = ("common_tower", "dot_product")


@dataclass(frozen=True)
class LinUCB:
    """Linear upper confidence bound: estimate plus `alpha` widths (Li et al. 2010), ties broken at random.

    Args:
      alpha: widths added to the estimate, 0 or more; 0 is greedy.
      tikhonov: ridge penalty, positive.
      gamma: forgetting factor per batch in (0, 1]; 1 forgets nothing.
    """

    alpha: float = 0.1
    tikhonov: float = 0.001
    gamma: float = 1.0

    def __post_init__(self):
        rules = {"alpha": checks.NON_NEGATIVE, "tikhonov": checks.POSITIVE, "gamma": checks.POSITIVE_PROBABILITY}
        checks.check_fields(self, **rules)


@dataclass(frozen=True)
class LinTS(LinUCB):
    """Linear Thompson sampling: estimate plus `alpha` widths times a standard normal draw for each user and arm.

    The draws are independent, as in TF-Agents; Agrawal and Goyal 2013 draw the whole coefficient vector, which gives
    every arm the same distribution but correlates arms that share a model.
    """


@dataclass(frozen=True, kw_only=True)
class Network:
    """Parameters of all agents with a network.

    Args:
      layers: units of the hidden layers.
      learning_rate: of Adam, positive.
      weight_decay: share of the weights, times the learning rate, that each step subtracts; 0 or more.
      network: "common_tower" or "dot_product", which joins the encodings of user and arm.
    """

    layers: tuple[int, ...] = (64, 32)
    learning_rate: float = 0.003
    weight_decay: float = 0.0
    network: str = "common_tower"

    def __post_init__(self):
        counts = isinstance(self.layers, tuple) and self.layers and all(map(checks.whole(1).accepts, self.layers))
        checks.require_field(self, "layers", counts, "a tuple of positive whole numbers")
        checks.check_fields(self, learning_rate=checks.POSITIVE, weight_decay=checks.NON_NEGATIVE)
        checks.check_fields(self, network=checks.one_of(NETWORKS))


class _ExploringNetwork(Network):
    """A reward network and an exploration around it, whose parameter is a field with a rule."""

    _exploration: ClassVar[tuple[str, str, checks.Rule]]

    def __post_init__(self):
        _, name, rule = self._exploration
        checks.check_fields(self, **{name: rule})
        super().__post_init__()

    @property
    def exploration(self) -> Exploration:
        """Distribution over the arms."""
        method, name, _ = self._exploration
        return Exploration(method, getattr(self, name))


@dataclass(frozen=True)
class EpsilonGreedy(_ExploringNetwork):
    """A reward network; the best arm, except for a share `epsilon` of uniformly random ones.

    Args:
      epsilon: exploration rate in [0, 1].
    """

    epsilon: float = 0.05
    _exploration = "epsilon_greedy", "epsilon", checks.PROBABILITY


@dataclass(frozen=True)
class Boltzmann(_ExploringNetwork):
    """A reward network; arms drawn with probability proportional to exp(prediction / temperature).

    Args:
      temperature: positive, in units of the reward.
    """

    temperature: float = 0.1
    _exploration = "softmax", "temperature", checks.POSITIVE


@dataclass(frozen=True)
class SquareCB(_ExploringNetwork):
    """A reward network; an arm is drawn the more rarely, the further its prediction is below the best.

    Args:
      gamma: positive, per unit of the reward: one of K arms whose prediction is d below the best has probability
        1 / (K + gamma d).
    """

    gamma: float = 1000.0
    _exploration = "inverse_gap", "gamma", checks.POSITIVE


@dataclass(frozen=True)
class NeuralLinUCB(Network):
    """LinUCB on an encoding that a network learns in the first batches.

    Args:
      alpha: widths added to the estimate, 0 or more.
      tikhonov: ridge penalty, positive.
      epsilon: exploration rate while the network learns, in [0, 1].
      encoding: length of the encoding.
      pretrain_steps: batches that train the network before the linear model learns.
      **network: fields of `Network`; `layers` are those before the encoding.
    """

    alpha: float = 0.1
    tikhonov: float = 0.001
    epsilon: float = 0.2
    encoding: int = 16
    pretrain_steps: int = 100
    layers: tuple[int, ...] = field(default=(64,), kw_only=True)

    def __post_init__(self):
        checks.check_fields(self, alpha=checks.NON_NEGATIVE, tikhonov=checks.POSITIVE, epsilon=checks.PROBABILITY)
        checks.check_fields(self, encoding=checks.whole(1), pretrain_steps=checks.whole(0))
        super().__post_init__()


@dataclass(frozen=True)
class Exp3Mixture:
    """EXP3 over linear agents: learn which of them should decide.

    Args:
      agents: two or more `LinUCB` or `LinTS`.
      gamma: share of uniform exploration over the agents, in (0, 1].
      reward_range: (lowest, highest) reward.
    """

    agents: tuple[LinUCB, ...] = (LinUCB(), LinTS(), LinUCB(alpha=1.0))
    gamma: float = 0.05
    reward_range: tuple[float, float] = (0.0, 5.0)

    def __post_init__(self):
        agents = self.agents if isinstance(self.agents, (tuple, list)) else ()
        ends = self.reward_range if isinstance(self.reward_range, (tuple, list)) else ()
        linear = len(agents) > 1 and all(isinstance(agent, LinUCB) for agent in agents)
        checks.require_field(self, "agents", linear, "two or more LinUCB or LinTS")
        checks.check_fields(self, gamma=checks.POSITIVE_PROBABILITY)
        ordered = len(ends) == 2 and all(map(checks.FINITE.accepts, ends)) and ends[0] < ends[1]
        checks.require_field(self, "reward_range", ordered, "(lowest, highest), finite, with lowest below highest")


@dataclass(frozen=True)
class Uniform:
    """Baseline: any available arm with the same probability."""


@dataclass(frozen=True)
class BestFixedArm:
    """Baseline: the available arm that is best for the average user, the best non-personalised policy."""


@dataclass(frozen=True)
class Oracle:
    """Baseline: the arm with the largest expected reward, which only the environment knows."""


NAMES = {
    "linucb": LinUCB,
    "lints": LinTS,
    "epsilon_greedy": EpsilonGreedy,
    "boltzmann": Boltzmann,
    "squarecb": SquareCB,
    "neural_linucb": NeuralLinUCB,
    "exp3_mixture": Exp3Mixture,
    "uniform": Uniform,
    "best_fixed_arm": BestFixedArm,
    "oracle": Oracle,
}
