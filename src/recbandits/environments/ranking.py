"""Slates: users see several items in slots, one below the other, and a click model says what they click."""

from typing import NamedTuple

from recbandits.tf import tf

from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from recbandits.environments.base import GLOBAL, PER_ARM, Response, SeededEnvironment
from recbandits.environments.clicks import ClickModel, PositionBased

FEEDBACK = ("score_vector", "cascading")
CHOSEN_INDEX, CHOSEN_VALUE = "chosen_index", "chosen_value"  # TF-Agents' names
POSITION_BASED = PositionBased()
_CLICKS = 2  # a stream of its own, after those of users and items


class RankingBatch(NamedTuple):
    """All that an environment knows about one batch of slates to be filled; the agent sees `observation` only.

    Attributes:
      observation: dict of `global` float [batch, features] and `per_arm` float [batch, items, features].
      users: int [batch], rows of the environment's `user_ids`; 0 where there are none.
      items: int [batch, items], rows of its `movie_ids`, or 0, 1, ... where there are none.
      attraction: float [batch, items] in [0, 1], probability of a click on an item that is looked at.
      relevance: float [batch, items], what ranking metrics read: stars, or the attraction where there are none.
      baselines: dict from a name to the scores float [batch, items] by which that baseline ranks: "popularity" always.
    """

    observation: dict
    users: tf.Tensor
    items: tf.Tensor
    attraction: tf.Tensor
    relevance: tf.Tensor
    baselines: dict


def feedback_spec(feedback, num_slots):
    """Spec of what comes back of a slate: "score_vector" or "cascading", as `RankingEnvironment` says.

    Raises:
      ValueError: another feedback.
    """
    if feedback not in FEEDBACK:
        raise ValueError(f"feedback must be one of {', '.join(FEEDBACK)}, got {feedback!r}")
    if feedback == "score_vector":
        return tensor_spec.TensorSpec([num_slots], tf.float32, "score_vector")
    return {
        CHOSEN_INDEX: tensor_spec.BoundedTensorSpec([], tf.int32, 0, num_slots, CHOSEN_INDEX),
        CHOSEN_VALUE: tensor_spec.TensorSpec([], tf.float32, CHOSEN_VALUE),
    }


class RankingEnvironment(SeededEnvironment):
    """A choice of `num_slots` among `num_items` items and their order, for each user of a batch.

    Candidates come in random order. As with the choice of one arm, the batch of step t is a function of (seed, t) and
    so is the users' uniforms: one slate has the same clicks whoever shows it.

    Args:
      observation_spec: dict of the specs of `global` [features] and `per_arm` [items, features].
      num_items: candidates per user, more than there are slots.
      num_slots: items shown.
      batch_size: users served per step.
      clicks: the click model, one of `environments.clicks`.
      feedback: what the agent learns from, in TF-Agents' terms: "score_vector" is float [slots], 1 where there was a
        click; "cascading" is the first slot with a click (`num_slots` without one) as `chosen_index`, and 1 or 0 as
        `chosen_value`.
      seed: of all random draws.

    Attributes:
      num_items, num_slots, clicks, feedback: as given.
      user_ids: int array [users], or None where users have no ids.
      movie_ids: int array [movies], likewise.

    Raises:
      ValueError: a size, click model or feedback that is none.
    """

    user_ids = movie_ids = None

    def __init__(
        self,
        observation_spec,
        num_items,
        num_slots,
        batch_size,
        clicks=POSITION_BASED,
        feedback="score_vector",
        seed=0,
    ):
        if num_slots < 1:
            raise ValueError(f"num_slots must be at least 1, got {num_slots}")
        if num_items <= num_slots:
            raise ValueError(f"num_items must be more than num_slots, {num_slots}, got {num_items}")
        if not isinstance(clicks, ClickModel):
            raise ValueError(f"clicks must be a click model such as Cascade(), got {clicks!r}")
        reward_spec = feedback_spec(feedback, num_slots)
        self.num_items, self.num_slots, self.clicks, self.feedback = num_items, num_slots, clicks, feedback
        action_spec = tensor_spec.BoundedTensorSpec([num_slots], tf.int32, 0, num_items - 1, "action")
        super().__init__(ts.time_step_spec(observation_spec, reward_spec), action_spec, batch_size, seed)

    def slate_attraction(self, batch, slate):
        """Attraction float [batch, slots] of the items of slates.

        Args:
          batch: a `RankingBatch`.
          slate: int32 [batch, slots], columns of the batch's items, from the first slot down.

        Raises:
          ValueError: outside a graph: another shape, a column that is none, or one that occurs twice in a slate.
        """
        self._check(slate)
        return tf.gather(batch.attraction, slate, batch_dims=1)

    def value(self, batch, slate):
        """Expected number of clicks [batch]; arguments and errors as `slate_attraction`."""
        return self.clicks.value(self.slate_attraction(batch, slate))

    def optimal_slate(self, batch):
        """Slate int32 [batch, slots] of the largest value: the most attractive items in descending order."""
        return tf.math.top_k(batch.attraction, self.num_slots).indices

    def optimal_value(self, batch):
        """Expected number of clicks [batch] on that slate."""
        return self.clicks.value(tf.math.top_k(batch.attraction, self.num_slots).values)

    def _respond(self, batch, action):
        attraction = self.slate_attraction(batch, action)
        clicks = self.clicks.draw(attraction, self.stream(_CLICKS))
        return Response(
            self._feedback(clicks),
            tf.reduce_sum(clicks, axis=1),
            self.clicks.value(attraction),
            self.optimal_value(batch),
        )

    def _feedback(self, clicks):
        if self.feedback == "score_vector":
            return clicks
        # An imagined click below the last slot is the first one where there is no other.
        first = tf.argmax(tf.pad(clicks, [[0, 0], [0, 1]], constant_values=1.0), axis=1, output_type=tf.int32)
        return {CHOSEN_INDEX: first, CHOSEN_VALUE: tf.reduce_max(clicks, axis=1)}

    def _step(self, action):
        self._check(action)  # TF-Agents goes on in a graph
        return super()._step(action)

    def _check(self, slate):
        if not tf.executing_eagerly():
            return
        slate = tf.convert_to_tensor(slate)
        if slate.shape != [self.batch_size, self.num_slots]:
            raise ValueError(
                f"a slate must be [batch, slots], [{self.batch_size}, {self.num_slots}], got {slate.shape.as_list()}"
            )
        ordered = tf.sort(slate, axis=1)
        twice = tf.reduce_any(ordered[:, 1:] == ordered[:, :-1], axis=1)
        if tf.reduce_any(twice):
            raise ValueError(f"the items of a slate must be different from each other, got {slate[twice][0].numpy()}")
        wrong = slate[(slate < 0) | (slate >= self.num_items)]
        if len(wrong):
            raise ValueError(f"the items of a slate must be in 0..{self.num_items - 1}, got {wrong[0].numpy()}")


def ranking_spec(context, arm, num_items):
    """Observation spec of an environment with `context` features of a user and `arm` features of each item."""
    return {
        GLOBAL: tensor_spec.TensorSpec([context], tf.float32, GLOBAL),
        PER_ARM: tensor_spec.TensorSpec([num_items, arm], tf.float32, PER_ARM),
    }
