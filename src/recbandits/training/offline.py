"""Training on logged decisions: networks in several epochs, linear models in one pass."""

from pathlib import Path
from typing import Any

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.agents.tf_agent import TFAgent
from tf_agents.specs import tensor_spec
from tf_agents.trajectories.time_step import TimeStep, time_step_spec

from recbandits.checks import SEED, require, require_each, whole
from recbandits.data.examples import Examples
from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.data.rating_features import RatingFeatures, check_candidates
from recbandits.data.slates import SlateExamples
from recbandits.environments.ranking import feedback_spec
from recbandits.training.distribution import get_strategy_of
from recbandits.training.epochs import PAIRS_PER_CALL, Training, plan_stages
from recbandits.training.experience import check_examples, check_new_events


class Specs:
    """Specs of logged decisions or slates, from which `make_agent` makes an agent as from an environment.

    `shapes` are those of one observation of the policy, such as `Features.spec(10)`: {"global": (G,), "per_arm": (k,
    D)}. A slate has `num_slots` of the candidates, but not all, and "score_vector" (a number for each slot) or
    "cascading" (the first slot that was clicked) feedback; ValueError for others.
    """

    def __init__(self, shapes: dict, num_slots: int | None = None, feedback: str = "score_vector"):
        self._shapes, self._slots, self._reward_spec = shapes, [] if num_slots is None else [num_slots], None
        if num_slots is not None:
            most = shapes[PER_ARM][0] - 1
            require(1 <= num_slots <= most, "num_slots", f"in [1, {most}], below the number of items", num_slots)
            self._reward_spec = feedback_spec(feedback, num_slots)

    def time_step_spec(self) -> TimeStep:
        """Return the spec of a TF-Agents time step with these observations, and for slates with their feedback."""
        spec = {name: tensor_spec.TensorSpec(shape, name=name) for name, shape in self._shapes.items()}
        return time_step_spec(spec, self._reward_spec)

    def action_spec(self) -> tensor_spec.BoundedTensorSpec:
        """Return the spec of a candidate's column, or of a slate of them."""
        return tensor_spec.BoundedTensorSpec(self._slots, tf.int32, 0, self._shapes[PER_ARM][0] - 1, "action")


def fit(
    agent: TFAgent,
    examples: Examples | SlateExamples,
    *,
    epochs: int = 1,
    batch_size: int = 1024,
    validation: Examples | SlateExamples | None = None,
    patience: int | None = None,
    weights: str | None = None,
    seed: int = 0,
    checkpoints: str | Path | None = None,
    tensorboard: str | Path | None = None,
    xla: bool = False,
) -> pd.DataFrame:
    """Train an agent on logged decisions; one row of the result is an epoch.

    Networks see the examples in a new order each epoch. A linear model sees each example once, in the order of the log:
    a second pass would add the same evidence again and shrink its confidence widths by sqrt(2), as if there had been
    twice as many decisions. NeuralLinUCB trains its network for `epochs` and then its linear model in one pass.

    The columns are epoch, stage ("network" or "linear"), loss (mean squared error of the batches before they were
    learnt), validation_mse (both weighted as `weights` says; of slates, the agent's own loss) and seconds (of
    training). ValueError for an agent, examples or options that do not fit; more than one pass, or an event that the
    agent has learnt before, where one pass is right; checkpoints of another training. FloatingPointError for a loss, a
    validation error or a weight that is not finite. After this, or any other interruption of an epoch, the agent is
    what it was after the epoch before.

    Args:
      agent: from `make_agent` with `Specs`; it is trained in place, with the strategy in whose scope it was made.
      examples: SlateExamples for an agent that ranks, else Examples.
      epochs: passes over the examples, for networks.
      batch_size: examples per update; the last batch of an epoch has what remains.
      validation: examples on which the error is measured after each epoch; None for none.
      patience: epochs without a better validation error after which a network stops; it keeps the state after its best
        epoch. None trains all epochs and keeps the last state.
      weights: None weighs all examples alike; "ips" by 1 / (propensity * pass_prob), divided by its mean, as if each
        candidate of each decision had been logged once: a decision counts as often as it has candidates. Of slates the
        agent itself weighs the slots, for position bias.
      seed: of the order of the examples.
      checkpoints: directory, one for each training; a training that was interrupted continues after its last
        checkpoint to the same end, bit by bit. One is written every ten seconds, and when the training ends, also by an
        error. Several workers need one that all of them see. None for none.
      tensorboard: directory, one for each training, for its curves and, of an agent with a reward network (not
        NeuralLinUCB), histograms of variables and gradients after each epoch (0 is before the first). A training that
        does not resume removes older event files there. None for none.
      xla: whether to compile networks with XLA: seconds of compilation for faster epochs. Not on several replicas.
    """
    parts = {"examples": examples} if validation is None else {"examples": examples, "validation": validation}
    require_each(whole(), epochs=epochs, batch_size=batch_size)
    require_each(SEED, seed=seed)
    if patience is not None:
        require_each(whole(), patience=patience)
        require(validation is not None, "validation", "examples where there is a patience", validation)
    require(weights in (None, "ips"), "weights", "None or 'ips'", weights)
    _check_agent(agent, weights)
    for name, part in parts.items():
        check_examples(agent, name, part)
    stages = plan_stages(agent, int(epochs))
    if "linear" in stages:
        check_new_events(agent, examples.event)
    # whole numbers as Python's own, because checkpoints compare options as text
    options = {"batch_size": int(batch_size), "patience": patience and int(patience), "weights": weights}
    options |= {"seed": int(seed), "xla": xla}
    training = Training(agent, stages, parts, options)
    if checkpoints is not None:
        training.restore(checkpoints)
    if tensorboard is not None:
        training.write_summaries(tensorboard)
    return training.run()


def score_candidates(
    model: Any,
    features: RatingFeatures | None,
    user_ids: np.ndarray,
    candidates: np.ndarray,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Predict the ratings float [n, k] of movies by ids of users and movies, minus infinity where the mask is False.

    The model is an agent, or a policy of one, in this process or loaded, with the features that it was trained with;
    or, without features, anything with `predict(user_ids [m], movie_ids [m])`, such as a `Factorization`. User ids are
    int [n], candidates int [n, k]; the mask is False in padding. ValueError for shapes that do not fit together,
    KeyError for ids that the features do not know.
    """
    user_ids, candidates, mask = check_candidates(user_ids, candidates, mask)
    values = np.full(candidates.shape, -np.inf)
    if features is None:
        values[mask] = model.predict(np.repeat(user_ids, mask.sum(axis=1)), candidates[mask])
        return values
    policy = getattr(model, "policy", model)
    rows = max(1, PAIRS_PER_CALL // candidates.shape[1])
    for start in range(0, len(user_ids), rows):
        part = slice(start, start + rows)
        available = mask[part]
        observation = features.observation(user_ids[part], candidates[part], available)
        context = np.repeat(observation[GLOBAL], available.sum(axis=1), axis=0)
        values[part][available] = policy.score_pairs(context, observation[PER_ARM][available])
    return values


def _check_agent(agent, weights):
    if not isinstance(agent.time_step_spec.observation, dict):
        raise ValueError("agent must be made for arms with features, as Specs describes them")
    if not agent.action_spec.shape.rank:
        return
    require(weights is None, "weights", "None for an agent that ranks, which weighs slots itself", weights)
    replicas = get_strategy_of(agent).num_replicas_in_sync
    # its loss is divided by the sum of its weights, of which every replica would know a part
    require(replicas == 1, "replicas of an agent that ranks", "1", replicas)
