"""Learn from logged decisions: epochs for networks, one pass for linear models."""

from recbandits.tf import tf

import numpy as np
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tqdm import tqdm

from recbandits.data.examples import Examples, make_examples
from recbandits.data.lookup import asked
from recbandits.environments.base import GLOBAL, PER_ARM
from recbandits.environments.ranking import feedback_spec
from recbandits.training.checks import check, check_new
from recbandits.training.run import PAIRS, Run, make_stages


class Specs:
    """What `make_agent` has to know of logged decisions.

    Args:
      shapes: of one decision's observation, such as `FeatureBundle.spec(10)`: {"global": (G,), "per_arm": (k, D)}.
    """

    def __init__(self, shapes):
        self._shapes = shapes

    def time_step_spec(self):
        """Spec of a TF-Agents time step with these observations."""
        spec = {name: tensor_spec.TensorSpec(shape, name=name) for name, shape in self._shapes.items()}
        return ts.time_step_spec(spec)

    def action_spec(self):
        """Spec of a candidate's column."""
        return tensor_spec.BoundedTensorSpec([], tf.int32, 0, self._shapes[PER_ARM][0] - 1, "action")


class SlateSpecs:
    """What `make_agent` has to know of logged slates.

    Args:
      shapes: of one observation that a policy will see, such as `FeatureBundle.spec(50)`: {"global": (G,), "per_arm":
        (items, D)}.
      num_slots: of a slate, below the number of items.
      feedback: "score_vector" (a number for each slot) or "cascading" (the first slot that was clicked).

    Raises:
      ValueError: as many slots as items or more, or another feedback.
    """

    def __init__(self, shapes, num_slots, feedback="score_vector"):
        items = shapes[PER_ARM][0]
        if not 1 <= num_slots < items:
            raise ValueError(f"num_slots must be in [1, {items - 1}], below the number of items, got {num_slots}")
        self._specs, self._slots, self._reward_spec = Specs(shapes), num_slots, feedback_spec(feedback, num_slots)

    def time_step_spec(self):
        """Spec of a TF-Agents time step with these observations, and with the feedback as its reward."""
        return ts.time_step_spec(self._specs.time_step_spec().observation, self._reward_spec)

    def action_spec(self):
        """Spec of a slate: columns of the candidates."""
        last = int(self._specs.action_spec().maximum)
        return tensor_spec.BoundedTensorSpec([self._slots], tf.int32, 0, last, "action")


def fit(
    agent,
    examples,
    *,
    epochs=1,
    batch_size=1024,
    validation=None,
    patience=None,
    weights=None,
    seed=0,
    checkpoints=None,
    tensorboard=None,
    xla=False,
):
    """Train an agent on logged decisions.

    Networks see the examples in a new order each epoch. A linear model sees each example once, in the order of the log:
    a second pass would add the same evidence again and shrink its confidence widths by sqrt(2), as if there had been
    twice as many decisions. NeuralLinUCB trains its network for `epochs` and then its linear model in one pass.

    Args:
      agent: from `make_agent` with `Specs`; it is trained in place, with the strategy in whose scope it was made.
      examples: Examples, or SlateExamples for an agent that ranks.
      epochs: passes over the examples, for networks.
      batch_size: examples per update; the last batch of an epoch has what remains.
      validation: examples on which the error is measured after each epoch; None for none.
      patience: epochs without a better validation error after which a network stops; it ends as it was after the best
        one. None trains all epochs and keeps the last.
      weights: None weighs all examples alike; "ips" by 1 / (propensity * pass_prob), divided by its mean, as if a
        uniform policy had logged the decisions. Of slates the agent itself weighs the slots, for position bias.
      seed: of the order of the examples.
      checkpoints: directory, one for each training; one that was interrupted goes on from its last epoch to the same
        end, bit by bit. Several workers need one that all of them see. None for none.
      tensorboard: directory, one for each training, for its curves and, of a network, histograms of variables and
        gradients after each epoch (0 is before the first); None for none.
      xla: whether to compile networks with XLA: seconds of compilation for faster epochs. Not on several replicas.

    Returns:
      DataFrame with one row an epoch: epoch, stage ("network" or "linear"), loss (mean squared error of the batches
      before they were learnt), validation_mse (both weighted as `weights` says; of slates, the agent's own loss) and
      seconds (of training).

    Raises:
      ValueError: an agent, examples or options that do not fit; more than one pass, or an event that the agent has
        learnt before, where one pass is right; checkpoints of another training.
      FloatingPointError: a loss or a weight that is not finite. After this, or any other interruption of an epoch, the
        agent is what it was after the epoch before.
    """
    parts = {"examples": examples} if validation is None else {"examples": examples, "validation": validation}
    check(agent, parts, epochs, batch_size, patience, weights)
    epochs, batch_size = int(epochs), int(batch_size)  # a resumed training compares them as text
    stages = make_stages(agent, epochs)
    if stages[-1].name == "linear":
        check_new(agent, examples.event)
    options = {"batch_size": batch_size, "patience": patience, "weights": weights, "seed": seed, "xla": xla}
    run = Run(agent, stages, parts, options)
    if checkpoints is not None:
        run.resume(checkpoints)
    if tensorboard is not None:
        run.summarise(tensorboard)
    with tqdm(total=len(run), disable=None, unit="epoch") as progress:
        for stage in stages:
            run(stage, progress)
    return run.frame()


def score_candidates(model, bundle, user_ids, candidates, mask=None):
    """Predicted reward of candidates.

    Args:
      model: an agent, or a policy of one, in this process or loaded; or, where the bundle is None, anything with
        `predict(user_ids [m], movie_ids [m])`, such as a `Factorization`.
      bundle: FeatureBundle that it was trained with.
      user_ids: int array [n].
      candidates: int array [n, k], movie ids.
      mask: bool array [n, k], False in padding; None for all True.

    Returns:
      float array [n, k], minus infinity where the mask is False.

    Raises:
      ValueError: shapes that do not fit together.
      KeyError: ids that the bundle does not know.
    """
    user_ids, candidates, mask = asked(user_ids, candidates, mask)
    values = np.full(candidates.shape, -np.inf)
    if bundle is None:
        values[mask] = model.predict(np.repeat(user_ids, mask.sum(axis=1)), candidates[mask])
        return values
    policy = getattr(model, "policy", model)
    rows = max(1, PAIRS // candidates.shape[1])
    for start in range(0, len(user_ids), rows):
        part = slice(start, start + rows)
        observation = bundle.observation(user_ids[part], candidates[part], mask[part])
        wanted = mask[part]
        context = np.repeat(observation[GLOBAL], wanted.sum(axis=1), axis=0)
        values[part][wanted] = policy.score_pairs(context, observation[PER_ARM][wanted])
    return values


def make_doubly_robust_examples(log, bundle, q):
    """Examples of every candidate, with the rewards by which doubly robust estimators value a policy.

    The reward of candidate a is q(a), plus (reward - q) / propensity if a was chosen: unbiased where the propensities
    are right, whatever q is (Dudik et al. 2014, "Doubly Robust Policy Evaluation and Optimization", section 3).

    Args:
      log: BanditLog
      bundle: FeatureBundle that knows its users and movies.
      q: float array [n, k], predicted reward of every candidate; it is not read in padding.

    Returns:
      Examples, one row for each decision and candidate that is not padding, with propensity 1: they need no more
      weighting for it. The chosen one keeps the hash of its event, the others have neighbouring numbers.
    """
    logged, observation = make_examples(log, bundle), bundle.observation(log.user_id, log.candidates, log.mask)
    row, column = np.nonzero(log.mask)
    reward, chosen = q[log.mask], column == log.action[row]
    reward[chosen] += (log.reward - reward[chosen]) / log.propensity
    return Examples(
        context=logged.context[row],
        arm=observation[PER_ARM][log.mask],
        reward=reward.astype(np.float32),
        propensity=np.ones(len(row), np.float32),
        pass_prob=logged.pass_prob[row],
        event=logged.event[row] + column - log.action[row],
    )
