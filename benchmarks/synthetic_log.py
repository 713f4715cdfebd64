"""Logs of a small environment of known probabilities, so that a policy's value is a sum and not a simulation."""

from dataclasses import dataclass

import numpy as np

REWARDS = ("0 or 1", "log-normal", "rare and large")


@dataclass(frozen=True)
class SyntheticEnvironment:
    """Users of C kinds, equally frequent, and A arms. All tables are float [C, A].

    Attributes:
      expected: mean reward.
      logging_policy: probabilities of the logging policy.
      target: probabilities of the target policy.
      model: what a wrong reward model predicts.
    """

    expected: np.ndarray
    logging_policy: np.ndarray
    target: np.ndarray
    model: np.ndarray

    @property
    def truth(self):
        """Value of the target, in closed form."""
        return (self.target * self.expected).sum(axis=1).mean()


def make_environment(kinds=6, arms=8, seed=0):
    """Environment in which the logging policy prefers other arms than the target, by weights up to about 8."""
    generator = np.random.default_rng(seed)
    expected = generator.uniform(0.1, 0.7, (kinds, arms))
    logging_policy = _softmax(generator.normal(0, 1, (kinds, arms))) * 0.8 + 0.2 / arms
    model = np.clip(expected + generator.normal(-0.1, 0.15, (kinds, arms)), 0, 1)
    return SyntheticEnvironment(expected, logging_policy, _softmax(6 * expected), model)


def draw_logs(environment, rewards, n, replications=1, seed=0):
    """Logs of n decisions each, as the estimators take them.

    Args:
      environment: `SyntheticEnvironment`.
      rewards: one of `REWARDS`; the mean is the same.
      n: decisions in a log.
      replications: number of logs, R.
      seed: of the generator.

    Returns:
      dict of kind and action int [R, n], reward, propensity, target, q_action and q_target float [R, n].
    """
    generator = np.random.default_rng(seed)
    kind = generator.integers(len(environment.expected), size=(replications, n))
    uniforms = generator.random((replications, n, 1))
    action = (
        (environment.logging_policy.cumsum(axis=1)[kind] <= uniforms)
        .sum(axis=2)
        .clip(max=environment.expected.shape[1] - 1)
    )
    mean = environment.expected[kind, action]
    return {
        "kind": kind,
        "action": action,
        "reward": _draw_rewards(mean, rewards, generator),
        "propensity": environment.logging_policy[kind, action],
        "target": environment.target[kind, action],
        "q_action": environment.model[kind, action],
        "q_target": (environment.target * environment.model).sum(axis=1)[kind],
    }


def _draw_rewards(mean, rewards, generator):
    if rewards == "0 or 1":
        return (generator.random(mean.shape) < mean).astype(float)
    if rewards == "log-normal":
        return mean * np.exp(generator.normal(size=mean.shape) - 0.5)
    if rewards == "rare and large":
        return (generator.random(mean.shape) < mean / 10) * generator.exponential(10, mean.shape)
    raise ValueError(f"rewards must be one of {', '.join(REWARDS)}, got {rewards!r}")


def _softmax(scores):
    weight = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)
