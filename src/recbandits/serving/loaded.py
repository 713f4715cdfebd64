"""A policy that serves: ids in, ids, scores and propensities out, by NumPy alone."""

import uuid
from functools import cached_property

import numpy as np

from recbandits.checks import distinct
from recbandits.data.features import FeatureTable, check_candidates
from recbandits.exploration import Exploration, draw_slate, invert_cdf, uniform_draws
from recbandits.serving import manifest
from recbandits.serving.decisions import Decisions, Recommendation
from recbandits.serving.summary import TrainingSummary

_PAIRS = 65_536  # users times candidates scored at a time
_DESCRIBE_USER = "describe who is new by `features`"
_DESCRIBE_ITEM = "describe what is new by `new_items`"


class LoadedPolicy:
    """A policy as it was exported; it may be used by many threads, and after a fork.

    Attributes:
      version: 16 hexadecimal digits, of all that was exported; the same policy exported again has the same.
      exploration: `Exploration`
      bundle: the FeatureBundle that it was exported with, or None.
      summary: `TrainingSummary`, or None.
      candidates: int array, ids of the items that it can choose from: its arms, or those of the bundle; None for a
        policy exported without either.
    """

    def __init__(self, directory, settings, scorer, bundle):
        self._directory, self._scorer, self.bundle = directory, scorer, bundle
        self._digest = settings["digest"]
        self.version, self.exploration = settings["version"], Exploration(**settings["exploration"])
        self.summary = TrainingSummary(**settings["summary"]) if settings["summary"] else None
        self._titles = {int(item): title for item, title in settings["titles"].items()}
        self._arms = None if settings["arms"] is None else FeatureTable.from_ids(settings["arms"], "item")
        self.candidates = self._arms.ids if self._arms else None if bundle is None else bundle.movie_table.ids

    def recommend(self, user_id=None, features=None, candidates=None, k=1, rng=None, new_items=None):
        """Choose an item for a user, and the next best ones; or a whole slate, where the exploration draws slates.

        Args:
          user_id: of the user; may be unknown or None where there are features.
          features: dict from a column of `bundle.users` to a number. What is not named is taken from the known user, or
            is the mean of all users; factors are then 0.
          candidates: ids to choose from, different from each other; None for all.
          k: how many items, at most as many as candidates.
          rng: None for fresh randomness, different in every process; a seed, or a `numpy.random.Generator`.
          new_items: dict from an item id, known or not, to its features, likewise by columns of `bundle.movies`. They
            are candidates where none are named.

        Returns:
          Recommendation; the same seed gives the same in any process, but for the event id.

        Raises:
          KeyError: unknown ids, by name.
          ValueError: no user, features or candidates that are not as above, or a policy that cannot score ids.
        """
        self._check_scorer()
        user = self._user(user_id, features)
        context = self.bundle.context(user)
        if self._arms is not None:
            item_ids, rows = self._choose_from(self._arms, candidates, new_items)
            scores = self._scorer.scores(context)[0].take(rows)
        else:
            item_ids, rows = self._choose_from(self.bundle.movie_table, candidates, new_items)
            items = self._items(item_ids, rows, new_items or {})
            scores = self._scorer.scores(context, self.bundle.per_arm(user, items[None]))[0]
        scores = scores.astype(float)
        chosen, propensities = draw_slate(self.exploration, scores, k, rng)
        names = item_ids.take(chosen).tolist()
        return Recommendation(
            event_id=uuid.uuid4().hex,
            policy_version=self.version,
            user_id=user_id,
            item_ids=names,
            titles=[self._titles.get(name) or f"item {name}" for name in names],
            scores=scores.take(chosen).tolist(),
            propensity=propensities[0],
            candidates=item_ids,
            context=context[0],
            propensities=propensities,
        )

    def decide(self, user_ids, candidates=None, mask=None, rng=None):
        """Choose one candidate for each of many known users: the first, where the exploration draws slates.

        Args:
          user_ids: int array [n].
          candidates: int array [n, k], item ids, different from each other in a row; None for all, for everybody.
          mask: bool array [n, k], False in padding; None for all True.
          rng: as for `recommend`.

        Returns:
          Decisions

        Raises:
          KeyError: unknown ids, by name.
          ValueError: shapes that do not fit together, a row that repeats a candidate or has none, or a policy that
            cannot score ids.
        """
        if candidates is not None:
            _check_distinct(*check_candidates(user_ids, candidates, mask)[1:])
        scores = self.scores(user_ids, candidates, mask)
        probabilities = self.exploration.probabilities(scores, mask)
        action = invert_cdf(probabilities, uniform_draws(len(scores), rng))
        return Decisions(action, probabilities[np.arange(len(action)), action], scores, probabilities)

    def scores(self, user_ids, candidates=None, mask=None):
        """Score candidates by their ids, with the features that the policy was trained on.

        Args:
          user_ids: int array [n].
          candidates: int array [n, k], item ids; None for all, for everybody.
          mask: bool array [n, k], False in padding; None for all True.

        Returns:
          float array [n, k], predicted rewards; minus infinity where the mask is False.

        Raises:
          ValueError: a policy that cannot score ids, or shapes that do not fit together.
          KeyError: ids that the bundle does not know.
        """
        self._check_scorer()
        table = self._arms or self.bundle.movie_table
        rows = np.arange(len(table.ids))
        shown = np.broadcast_to(table.ids, (len(user_ids), len(rows))) if candidates is None else candidates
        user_ids, shown, mask = check_candidates(user_ids, shown, mask)
        user_table = self.bundle.user_table
        users = user_table.values.take(user_table.require_rows(user_ids, _DESCRIBE_USER), axis=0)
        if candidates is not None:
            rows = np.zeros(shown.shape, int)
            rows[mask] = table.require_rows(shown[mask], _DESCRIBE_ITEM)
        scores, size = np.empty(shown.shape), max(1, _PAIRS // shown.shape[1])
        for start in range(0, len(users), size):
            part = slice(start, start + size)
            scores[part] = self._score(users[part], rows if candidates is None else rows[part])
        scores[~mask] = -np.inf
        return scores

    def score_pairs(self, context, arm):
        """Score pairs of a context float32 [n, G] and an arm float32 [n, D], float32 [n]: for arms with features."""
        if self._scorer is None or self._arms is not None:
            raise ValueError("policy must score arms by their features to score pairs, this one does not")
        return self._scorer.scores(np.asarray(context), np.asarray(arm))

    def action(self, time_step):
        """The policy step of a TF-Agents time step, by the SavedModel; nothing else here needs TensorFlow.

        Where the policy fills slates, the reward of the time step has the shape of its agent's:
        `restart(observation, batch_size, reward_spec)`.
        """
        return self._saved_model.action(time_step)

    @cached_property
    def _saved_model(self):
        import tensorflow as tf

        if manifest.read(self._directory)[0]["digest"] != self._digest:
            raise ValueError(f"policy {self._directory.name} was replaced after it was loaded, load it again")
        return tf.saved_model.load(str(self._directory))

    def _score(self, users, rows):
        """Scores [n, k] of users [n, columns] and rows of items: [n, k], or [k] that are the same for everybody."""
        context = self.bundle.context(users)
        if self._arms is not None:
            scores = self._scorer.scores(context)
            return scores.take(rows, axis=1) if rows.ndim == 1 else np.take_along_axis(scores, rows, axis=1)
        items = self.bundle.movie_table.values.take(rows, axis=0)
        items = np.broadcast_to(items, (len(users), *items.shape[-2:]))
        return self._scorer.scores(context, self.bundle.per_arm(users, items))

    def _check_scorer(self):
        if self.bundle is None:
            raise ValueError("policy must have been exported with its features to score ids, it has none")
        if self._scorer is None:
            raise ValueError(
                "policy must score by what it has learnt to serve ids, this one does not: it has `action` only"
            )

    def _user(self, user_id, features):
        """All features of a user, float32 [1, columns]."""
        table = self.bundle.user_table
        if user_id is None and features is None:
            raise ValueError("a user must have a user_id or features, got neither")
        if isinstance(user_id, bool) or not (user_id is None or isinstance(user_id, (int, np.integer))):
            raise ValueError(f"user_id must be a whole number, got {user_id!r}")
        if features is None:
            return table.values[table.require_rows([user_id], _DESCRIBE_USER)]
        return table.describe(features, -1 if user_id is None else int(table.find_rows([user_id])[0]))[None]

    def _choose_from(self, table, candidates, new_items):
        """(ids int [c], rows in the table int [c]) of candidates, -1 for those that are described anew."""
        if new_items and self._arms is not None:
            raise ValueError("new_items must be empty for a policy with fixed arms, it can choose no other item")
        if candidates is None and not new_items:
            return table.ids, np.arange(len(table.ids))
        if candidates is None:
            candidates = [*table.ids.tolist(), *(item for item in new_items if table.find_rows([item])[0] < 0)]
        ids = np.asarray(candidates)
        if ids.ndim != 1 or not ids.size or len(set(ids.tolist())) < ids.size:
            raise ValueError(f"candidates must be ids different from each other, at least one, got {ids.tolist()}")
        if not new_items:
            return ids, table.require_rows(ids, _DESCRIBE_ITEM)
        if strange := new_items.keys() - set(ids.tolist()):
            raise ValueError(f"new_items must be among the candidates, {min(strange)} is not")
        table.require_rows(ids[~np.isin(ids, list(new_items))], _DESCRIBE_ITEM)
        return ids, table.find_rows(ids)

    def _items(self, ids, rows, new_items):
        """All features of candidates, float32 [c, columns]."""
        table = self.bundle.movie_table
        values = table.values.take(rows, axis=0)
        for place in np.flatnonzero(np.isin(ids, list(new_items))) if new_items else ():
            values[place] = table.describe(new_items[int(ids[place])], rows[place])
        return values


def _check_distinct(candidates, mask):
    good = distinct(candidates, mask)
    if not good.all():
        row = np.argmin(good)
        raise ValueError(f"row {row}: candidates must be different from each other, got {candidates[row].tolist()}")
