"""An endpoint, policies and agents that never leave the memory of one process."""

from contextlib import contextmanager
from hashlib import blake2b

import numpy as np

from recbandits.exploration import invert_cdf
from recbandits.platforms.endpoints import expect_deployed, expect_shares
from recbandits.serving.served import ServedPolicy
from recbandits.serving.traffic_split import TrafficSplit


class MemoryEndpoint:
    """What a release needs of `platforms.endpoints.Endpoint`, in this process; policies are `ServedPolicy`."""

    name = "memory"

    def __init__(self):
        self.policies, self._release = {}, None

    @property
    def traffic_split(self):
        """See `Endpoint.traffic_split`."""
        return dict(self._release.shares) if self._release else {}

    def deploy(self, policy, traffic_percentage=100):
        """See `Endpoint.deploy`."""
        version, before = policy.version, self._release
        first = TrafficSplit({version: traffic_percentage}) if before is None else None
        self._release = first or before.with_version(version, traffic_percentage)
        self.policies[policy.version] = policy
        return policy.version

    def split(self, traffic_split, expected=None):
        """See `Endpoint.split`; a deployed version that is not named gets nothing."""
        shares = self.traffic_split
        expect_shares(self.name, shares, expected)
        expect_deployed(self.name, shares.keys(), traffic_split.keys())
        self._release = self._release.then(dict.fromkeys(shares, 0) | traffic_split)

    def undeploy(self, version):
        """See `Endpoint.undeploy`."""
        self._release = self._release.without(version)
        del self.policies[version]

    def decide(self, user_ids, context, candidates, luck):
        """Decide for visitors, each by the version that the release gives them.

        Args:
          user_ids: text [n].
          context: DataFrame [n] of raw columns.
          candidates: text [n, k], item ids.
          luck: float [n] in [0, 1).

        Returns:
          (versions object [n], probabilities float [n, k], actions int [n]).
        """
        of_user = {user: self._release.version(user) for user in set(user_ids)}
        versions = np.array([of_user[user] for user in user_ids], dtype=object)
        probabilities = np.empty(candidates.shape)
        for version in set(of_user.values()):
            rows = versions == version
            policy = self.policies[version]
            scores = policy.scores(context[rows], candidates[rows])
            probabilities[rows] = policy.exploration.probabilities(scores)
        return versions, probabilities, invert_cdf(probabilities, luck)


def in_memory(scorer, features, exploration):
    """A policy that was never on a disk.

    Args:
      scorer: `Scorer`, linear.
      features: `Features` that it reads.
      exploration: `Exploration`

    Returns:
      `ServedPolicy`, whose version is a digest of what it computes.
    """
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in scorer.head[0])
    version = blake2b(content + repr(exploration).encode(), digest_size=8).hexdigest()
    way = {"name": exploration.name, "value": exploration.value}
    settings = {"version": version, "digest": version, "exploration": way, "summary": None, "titles": {}, "arms": None}
    return ServedPolicy(None, settings, scorer, features)


def give(source, target):
    """Give one agent what another has learnt."""
    for mine, its in zip(target.model.variables, source.model.variables, strict=True):
        mine.assign(its)
    target.learned_events.assign(source.learned_events)


@contextmanager
def eagerly():
    """Have TensorFlow compute at once: tracing a graph for a single batch takes longer, and gives the same bits."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
