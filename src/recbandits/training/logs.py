"""Training and evaluation on a `Log`: agents learn it, target policies are computed and compared on it."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from tf_agents.agents.tf_agent import TFAgent

from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import LinUCB
from recbandits.checks import require
from recbandits.data.examples import make_examples
from recbandits.data.features import Features
from recbandits.evaluation import difference, estimators, off_policy
from recbandits.evaluation.reward_model import cross_fit
from recbandits.exploration import Exploration
from recbandits.records.log import Log
from recbandits.training.offline import Specs, fit


def train(
    log: Log, features: Features, agent: Any = "linucb", seed: int = 0, validation: Log | None = None, **options: Any
) -> TFAgent:
    """Make an agent and let it learn a log with features that were fitted to it; errors are of `make_agent` and `fit`.

    The agent is a name with its parameters among the options, or parameters such as `LinUCB(alpha=0.1)`. The other
    options are those of `fit`. The seed is that of weights, order and exploration. By later decisions, `validation`, a
    network stops early if it has a `patience`.
    """
    fitting = {name: options.pop(name) for name in options.keys() & inspect.signature(fit).parameters.keys()}
    width = max(2, log.mask.shape[1])
    learner = make_agent(agent, Specs(features.spec(width)), seed, **options)
    if isinstance(learner.parameters, LinUCB) and not features.depends_on_both:
        warnings.warn(
            "a linear model orders the items alike for everybody, because no feature depends on context and item "
            "together: name columns of both in `crosses`",
            stacklevel=2,
        )
    held_out = None if validation is None else make_examples(validation, features)
    fit(learner, make_examples(log, features), validation=held_out, seed=seed, **fitting)
    return learner


def score_log(model: Any, log: Log, features: Features) -> np.ndarray:
    """Predict the reward of every candidate, float [n, k], minus infinity in padding.

    The model is an agent, its policy, or a `ServedPolicy`; the features are those that it was trained with. ValueError
    if an agent learnt from other numbers of features.
    """
    policy, mask = getattr(model, "policy", model), log.mask
    signature = getattr(policy.score_pairs, "input_signature", None)  # of an agent's policy
    if signature is not None:
        expected, widths = [each.shape[1] for each in signature], [each[-1] for each in features.spec(1).values()]
        words = f"{expected}, as those that the model learnt from"
        require(widths == expected, "numbers of features of the context and of an item", words, widths)
    scores = np.full(mask.shape, -np.inf)
    scores[mask] = np.concatenate([policy.score_pairs(*part) for part in features.observe(log, mask)])
    return scores


def target_probabilities(
    model: Any, log: Log, features: Features, exploration: Exploration | None = None
) -> np.ndarray:
    """Compute the probabilities of a model's policy for the candidates of a log, float [n, k]; greedy by default."""
    return (exploration or Exploration()).probabilities(score_log(model, log, features), log.mask)


def evaluate(
    log: Log, policies: Mapping, features: Features | None = None, names: Sequence[str] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Estimate the value of policies, and how much more than the logging policy's it is, by a log they have not learnt.

    `policies` map names to probabilities float [n, k], such as `target_probabilities` computes. Features are those of
    the reward model of the doubly robust estimators, a ridge regression on the features without products of columns. It
    is cross-fitted in 5 folds of users, or as many as there are users; `seed` draws them. By default the estimators are
    SNIPS, and DR where there are features.

    Returns a DataFrame indexed by (policy, estimator) with the columns of `off_policy.tabulate`, and the paired
    difference to the logging policy: gain, gain_low, gain_high. The first row is the logging policy. Intervals are of
    95 %, and clustered by user. ValueErrors are those of `off_policy.estimates`, with the name of the policy, and one
    for features where the log has fewer than 2 users.
    """
    names = names or (("SNIPS",) if features is None else ("SNIPS", "DR"))
    q = None if features is None else _predict(log, features.without_crosses(), seed)
    logging = estimators.ips(log.reward, log.propensity, log.propensity, pass_prob=log.pass_prob)
    tabulate = partial(off_policy.tabulate, groups=log.user_id)
    rows = [tabulate({"mean": logging}).assign(policy="logging policy")]
    for policy, probabilities in policies.items():
        try:
            estimates = off_policy.estimates(log, probabilities, q, names=names)
        except ValueError as error:
            raise ValueError(f"policy {policy!r}: {error}") from None
        table = tabulate(estimates).assign(policy=policy)
        for name, estimate in estimates.items():
            gain = difference(estimate, logging)
            table.loc[name, ["gain", "gain_low", "gain_high"]] = [gain.value, *gain.interval(groups=log.user_id)]
        rows.append(table)
    return pd.concat(rows).set_index("policy", append=True).swaplevel()


def _predict(log: Log, features: Features, seed: int) -> np.ndarray:
    """Predict the reward of every candidate by models of up to 5 folds of users."""
    users = len(np.unique(log.user_id))
    require(users >= 2, "number of users in the log", "2 or more for the reward model of the features", users)
    return cross_fit(log, features, folds=min(5, users), seed=seed)
