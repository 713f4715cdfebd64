"""Slates: users see several items in slots, one below the other, and a click model draws their clicks."""

from typing import NamedTuple

from recbandits.tf import tf

from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from recbandits.checks import distinct, one_of, require, require_each, require_rows, require_shape, whole
from recbandits.environments.base import Response, SeededEnvironment
from recbandits.environments.clicks import ClickModel, PositionBased

CHOSEN_INDEX, CHOSEN_VALUE = "chosen_index", "chosen_value"  # TF-Agents' names
_POSITION_BASED = PositionBased()
_CLICKS = 2  # stream of random numbers, after those of users and items


class RankingBatch(NamedTuple):
    """All that an environment knows about one batch of users and candidates; the agent sees `observation` only.

    It is a dict of `global` float [batch, features] and `per_arm` float [batch, items, features]. `users` int [batch]
    and `items` int [batch, items] are rows of the environment's `user_ids` and `movie_ids`; 0 and 0, 1, ... where there
    are none. Of items, float [batch, items], `attraction` in [0, 1] is the probability of a click when examined,
    `relevance` is for ranking metrics: stars, or the attraction where there are none. `baselines` map names to the
    scores by which they rank: "popularity" always.
    """

    observation: dict
    users: tf.Tensor
    items: tf.Tensor
    attraction: tf.Tensor
    relevance: tf.Tensor
    baselines: dict


def feedback_spec(feedback: str, num_slots: int) -> tensor_spec.TensorSpec | dict:
    """Return the spec of the feedback on a slate, "score_vector" or "cascading" (see `RankingEnvironment`)."""
    require_each(one_of(("score_vector", "cascading")), feedback=feedback)
    if feedback == "score_vector":
        return tensor_spec.TensorSpec([num_slots], tf.float32, "score_vector")
    return {
        CHOSEN_INDEX: tensor_spec.BoundedTensorSpec([], tf.int32, 0, num_slots, CHOSEN_INDEX),
        CHOSEN_VALUE: tensor_spec.TensorSpec([], tf.float32, CHOSEN_VALUE),
    }


class RankingEnvironment(SeededEnvironment):
    """A choice of `num_slots` items among `num_items`, which are more, and of their order, for each user.

    Candidates are in random order. The uniform draws behind the clicks at step t are a function of (seed, t), as the
    batch is: policies that show the same slate get the same clicks. The agent learns from feedback in TF-Agents' terms:
    "score_vector" is float [slots], 1 where there was a click; "cascading" is the first slot with a click (`num_slots`
    without one) as `chosen_index`, and 1 or 0 as `chosen_value`. ValueError for a size, click model or feedback that is
    not allowed.
    """

    def __init__(
        self,
        observation_spec: dict[str, tensor_spec.TensorSpec],
        num_items: int,
        num_slots: int,
        batch_size: int,
        clicks: ClickModel = _POSITION_BASED,
        feedback: str = "score_vector",
        seed: int = 0,
    ):
        require_each(whole(), num_slots=num_slots)
        require(num_items > num_slots, "num_items", f"more than num_slots, {num_slots}", num_items)
        require(isinstance(clicks, ClickModel), "clicks", "a click model such as Cascade()", clicks)
        time_step_spec = ts.time_step_spec(observation_spec, feedback_spec(feedback, num_slots))
        self.num_items, self.num_slots, self.clicks, self.feedback = num_items, num_slots, clicks, feedback
        action_spec = tensor_spec.BoundedTensorSpec([num_slots], tf.int32, 0, num_items - 1, "action")
        super().__init__(time_step_spec, action_spec, batch_size, seed)

    def slate_attraction(self, batch: RankingBatch, slate: tf.Tensor) -> tf.Tensor:
        """Return the attraction float [batch, slots] of the items of slates int32 [batch, slots], columns of a batch.

        Outside a graph, ValueError for another shape, an index out of range, or one that occurs twice in a slate.
        """
        self._check(slate)
        return tf.gather(batch.attraction, slate, batch_dims=1)

    def respond(self, batch: RankingBatch, action: tf.Tensor) -> Response:
        """Draw the clicks on slates int32 [batch, slots]; arguments and errors as `slate_attraction`."""
        attraction = self.slate_attraction(batch, action)
        clicks = self.clicks.draw(attraction, self.stream(_CLICKS))
        feedback = clicks
        if self.feedback == "cascading":
            # A click appended below the last slot is the first one where there is no other.
            first = tf.argmax(tf.pad(clicks, [[0, 0], [0, 1]], constant_values=1.0), axis=1, output_type=tf.int32)
            feedback = {CHOSEN_INDEX: first, CHOSEN_VALUE: tf.reduce_max(clicks, axis=1)}
        # the best slate has the most attractive items in descending order
        best = tf.math.top_k(batch.attraction, self.num_slots).values
        return Response(feedback, tf.reduce_sum(clicks, axis=1), *map(self.clicks.value, (attraction, best)))

    def _step(self, action):
        self._check(action)  # the step of TF-Agents runs in a graph
        return super()._step(action)

    def _check(self, slate):
        if not tf.executing_eagerly():
            return
        slate = require_shape(slate, "slates", self.batch_size, self.num_slots)
        require_rows(distinct(slate), "the items of a slate", "different from each other", slate)
        inside = (slate >= 0) & (slate < self.num_items)
        require_rows(inside, "the items of a slate", f"in 0..{self.num_items - 1}", slate)
