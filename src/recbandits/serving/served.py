"""A policy that serves: raw columns and text ids in, ids, scores and propensities out, by NumPy alone."""

import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbandits.checks import distinct, one_of, require, require_rows, require_shape
from recbandits.data.features import Features
from recbandits.exploration import Exploration, draw_slate, invert_cdf, uniform_draws
from recbandits.exploration.probabilities import Rng
from recbandits.records.fields import read_id
from recbandits.serving import manifest
from recbandits.serving.decisions import Decisions, Recommendation
from recbandits.serving.scorer import ACTIVATIONS, JOINS, Scorer

_PAIRS = 65_536  # requests times candidates scored at a time


class ServedPolicy:
    """A policy as it was exported; it may be used by many threads, and after a fork.

    Attributes:
      version: 16 hexadecimal digits, of all that was exported; the same policy exported again has the same.
      exploration, features, summary: what it was exported with; features and summary may be None.
      candidates: text ids of the items that it can choose from, an index: its arms, or the items of its features; None
        for a policy exported without either.
      has_arms: whether those are fixed arms, without features.
      directory: where its SavedModel is; None for a policy that was never exported.
    """

    def __init__(
        self, directory: Path | None, settings: Mapping[str, Any], scorer: Scorer | None, features: Features | None
    ):
        self.directory, self.features, self._scorer = directory, features, scorer
        self.version, self._digest = settings["version"], settings["digest"]
        self.exploration, self.summary = Exploration(**settings["exploration"]), settings["summary"]
        self._titles, self.has_arms = settings["titles"], settings["arms"] is not None
        arms = pd.Index(settings["arms"], dtype=object) if self.has_arms else None
        self.candidates = arms if features is None or self.has_arms else features.item_ids
        self._ids = [] if self.candidates is None else self.candidates.tolist()
        self._rows = {name: row for row, name in enumerate(self._ids)}

    def check(self) -> None:
        """Score an item for an empty request, if the policy can: its parts fit together, or an error says why not."""
        if self._scorer is None:
            return
        for name, known in {"join": JOINS, "activation": [*ACTIVATIONS]}.items():
            value = getattr(self._scorer, name)
            require(value in known, f"{name} of the scorer", one_of(known).expected, value)
        for array in (each for tower in self._scorer[2:] for layer in tower for each in layer):
            require(array.dtype.kind == "f", "arrays of the scorer", "floats", array.dtype.name)
        if self.features is None:
            return
        require(bool(self._ids), "candidates", "at least one", self._ids)
        numbers = {} if self.has_arms else {name: np.zeros((1, 1)) for name in self.features.candidate_features}
        scores = self.scores(pd.DataFrame(index=[0]), [self._ids[:1]], candidate_features=numbers)
        require(bool(np.isfinite(scores).all()), "scores", "finite", scores[0, 0])
        if self.has_arms:
            outputs = self._scorer.head[-1][0].shape[1]
            require(outputs == len(self._ids), "arms", f"{outputs}, as the scorer has", len(self._ids))

    def recommend(
        self,
        context: Mapping[str, Any] | None = None,
        candidates: Sequence[str] | None = None,
        k: int = 1,
        rng: Rng = None,
        user_id: str | None = None,
        candidate_features: Mapping[str, Sequence[float]] | None = None,
        new_items: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Recommendation:
        """Choose an item for a request, and the next best ones; or a whole slate, where the exploration draws slates.

        Ids are text, or whole numbers that become their text. The same seed gives the same in any process, but for the
        event id.

        Args:
          context: what is known of the request, by raw columns; what is missing is the mean, or no level.
          candidates: ids to choose from, different from each other; None for all.
          k: how many items, at most as many as candidates.
          rng: None for fresh randomness, different in every process; a seed, or a `numpy.random.Generator`.
          user_id: for the log; what is known of the user is part of the context.
          candidate_features: from name to a number for each candidate; needed where the policy was trained on them.
          new_items: from the id of a candidate, known or not, to its raw columns; candidates where none are named.

        Raises:
          KeyError: unknown ids, by name.
          ValueError: anything else that is not as above, or a policy that cannot score ids.
        """
        features = self._require_scorer()
        context = {} if context is None else dict(context)
        user_id = None if user_id is None else read_id("user_id", user_id)
        new_items = {read_id("id of a new item", name): columns for name, columns in (new_items or {}).items()}
        ids, rows = self._choose_from(candidates, new_items)
        encoded = features.context_encoder.encode_row(context)[None]
        each = {name: [values] for name, values in (candidate_features or {}).items()}
        numbers = self._read_numbers(each, np.ones((1, len(ids)), bool))
        items = self._describe(ids, rows, new_items) if new_items else None
        scores = self._score_part(encoded, rows, list(numbers.values()), items)[0].astype(float)
        chosen, propensities = draw_slate(self.exploration, scores, k, rng)
        names = [ids[column] for column in chosen]
        return Recommendation(
            event_id=uuid.uuid4().hex,
            policy_version=self.version,
            user_id=user_id,
            item_ids=names,
            titles=[self._titles.get(name, name) for name in names],
            scores=scores.take(chosen).tolist(),
            propensity=propensities[0],
            candidates=ids,
            context=context,
            candidate_features={name: values[0].tolist() for name, values in numbers.items()},
            propensities=propensities,
        )

    def decide(
        self,
        context: pd.DataFrame,
        candidates: Any = None,
        mask: np.ndarray | None = None,
        rng: Rng = None,
        candidate_features: Mapping[str, np.ndarray] | None = None,
    ) -> Decisions:
        """Choose one candidate, the first of a slate, for each of many requests; see `scores` and `recommend`."""
        rows, mask = self._find_rows(context, candidates, mask)
        if rows is not None:
            require_rows(distinct(rows, mask), "candidates", "different from each other", candidates)
        scores = self._score(context, rows, mask, candidate_features)
        probabilities = self.exploration.probabilities(scores, mask)
        action = invert_cdf(probabilities, uniform_draws(len(scores), rng))
        return Decisions(action, probabilities[np.arange(len(action)), action], scores, probabilities)

    def scores(
        self,
        context: pd.DataFrame,
        candidates: Any = None,
        mask: np.ndarray | None = None,
        candidate_features: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Predict the rewards of candidates.

        Args:
          context: raw columns of n requests.
          candidates: ids [n, k]; None for all, for each request.
          mask: bool array [n, k], False in padding, whose ids and numbers are not read; None for all True.
          candidate_features: from name to an array [n, k]; needed where the policy was trained on them.

        Returns:
          float array [n, k], minus infinity in padding.

        Raises:
          KeyError, ValueError: see `recommend`; or shapes that do not fit together.
        """
        rows, mask = self._find_rows(context, candidates, mask)
        return self._score(context, rows, mask, candidate_features)

    def score_pairs(self, context: np.ndarray, arm: np.ndarray) -> np.ndarray:
        """Score pairs of a context float32 [n, G] and an arm float32 [n, D], float32 [n]: for arms with features."""
        if self._scorer is None or self.has_arms:
            raise ValueError("policy must score arms by their features to score pairs, this one does not")
        return self._scorer.scores(np.asarray(context), np.asarray(arm))

    def action(self, time_step: Any) -> Any:
        """Return the policy step of a TF-Agents time step, by the SavedModel; nothing else here needs TensorFlow.

        Where the policy fills slates, the reward has the shape of `restart(observation, batch_size, reward_spec)`.
        """
        return self._saved_model.action(time_step)

    @cached_property
    def _saved_model(self):
        import tensorflow as tf

        if manifest.read(self.directory)[0]["digest"] != self._digest:
            raise ValueError(f"policy {self.directory.name} was replaced after it was loaded, load it again")
        return tf.saved_model.load(str(self.directory))

    def _require_scorer(self) -> Features:
        if self.features is None:
            raise ValueError("policy must have been exported with its features to score ids, it has none")
        if self._scorer is None:
            raise ValueError("policy must score by what it has learnt to serve ids, this one does not: only `action`")
        return self.features

    def _choose_from(self, candidates, new_items):
        """Return the ids of candidates, and their rows int [1, c], -1 for those that are only new; None for all."""
        require(not new_items or not self.has_arms, "new_items", "empty for a policy with fixed arms", [*new_items])
        if candidates is None and not new_items:
            return self._ids.copy(), None
        if candidates is None:
            ids = [*self._ids, *(name for name in new_items if name not in self._rows)]
        else:
            ids = [name if type(name) is str and name else read_id("candidates", name) for name in candidates]
        require(bool(ids) and len(set(ids)) == len(ids), "candidates", "one or more ids, all different", ids)
        unexpected = new_items.keys() - set(ids)
        require(not unexpected, "new_items", "among the candidates", min(unexpected, default=""))
        rows = [self._rows.get(name, -1) for name in ids]
        self._require_known(name for name, row in zip(ids, rows, strict=True) if row < 0 and name not in new_items)
        # The texts of the policy itself: what waits to be logged then has none of its own.
        return [name if row < 0 else self._ids[row] for name, row in zip(ids, rows, strict=True)], np.array([rows])

    def _describe(self, ids, rows, new_items):
        """Return the encoded columns of candidates, float32 [1, c, numbers]."""
        items, columns_of = self.features.items.take(rows, axis=0), {name: column for column, name in enumerate(ids)}
        for name, columns in new_items.items():
            items[0, columns_of[name]] = self.features.item_encoder.encode_row(columns)
        return items

    def _find_rows(self, context, candidates, mask):
        """Return the rows of candidates int [n, k], None for all of each request, and the mask bool [n, k]."""
        self._require_scorer()
        require(isinstance(context, pd.DataFrame), "context", "a table of raw columns", type(context).__name__)
        n, ids = len(context), None if candidates is None else np.asarray(candidates, object)
        shape = (n, len(self._ids)) if ids is None else require_shape(ids, "candidates", n, "k").shape
        require(shape[1] > 0, "number of candidates", "at least 1", 0)
        mask = np.ones(shape, bool) if mask is None else require_shape(np.asarray(mask, bool), "mask", *shape)
        if ids is None:
            return None, mask
        named = pd.Index(ids[mask], dtype=object)  # which pandas would otherwise look through for their type
        positions = self.candidates.get_indexer(named)
        if (other := np.flatnonzero(positions < 0)).size:  # whole numbers, or unknown
            positions[other] = self.candidates.get_indexer([read_id("candidates", name) for name in named[other]])
        self._require_known(map(str, named[positions < 0]))
        rows = np.zeros(shape, int)
        rows[mask] = positions
        return rows, mask

    def _require_known(self, unknown):
        if names := sorted(set(unknown))[:10]:
            advice = "" if self.has_arms else "; describe what is new by `new_items`"
            raise KeyError(f"unknown item ids: {', '.join(names)}{advice}")

    def _score(self, context, rows, mask, candidate_features):
        """Return scores [n, k] of rows of items, in parts that fit into memory."""
        numbers = self._read_numbers(candidate_features or {}, mask)
        encoded = self.features.context_encoder.encode(context)
        scores, size = np.empty(mask.shape), max(1, _PAIRS // mask.shape[1])
        for start in range(0, len(encoded), size):
            part = slice(start, start + size)
            part_rows = None if rows is None else rows[part]
            scores[part] = self._score_part(encoded[part], part_rows, [values[part] for values in numbers.values()])
        scores[~mask] = -np.inf
        return scores

    def _score_part(self, encoded, rows, numbers, items=None):
        """Return scores [n, k] of rows of items, None for all; `items` are their encoded columns, if not as known."""
        context = self.features.context(encoded)
        if self.has_arms:
            scores = self._scorer.scores(context)
            return scores if rows is None else np.take_along_axis(scores, rows, axis=1)
        if items is None:
            items = self.features.items if rows is None else self.features.items.take(rows, axis=0)
            items = np.broadcast_to(items, (len(encoded), *items.shape[-2:]))
        return self._scorer.scores(context, self.features.per_arm(encoded, items, numbers))

    def _read_numbers(self, candidate_features, mask):
        """Return float [n, k], 0 in padding, for each feature of candidates that the policy was trained on."""
        names = () if self.has_arms else self.features.candidate_features
        known = set(candidate_features) == set(names)
        require(known, "candidate_features", ", ".join(names) or "none", [*candidate_features])
        read = {}
        for name in names:
            values = candidate_features[name]
            try:
                numbers = np.asarray(values, float)
            except (TypeError, ValueError):
                numbers = np.zeros(0)
            valid = numbers.shape == mask.shape and bool((np.isfinite(numbers) | ~mask).all())
            expected = f"{mask.shape[1]} finite numbers, one for each candidate"
            require(valid, f"candidate feature {name!r}", expected, values[0] if len(mask) == 1 else values)
            read[name] = np.where(mask, numbers, 0.0)
        return read
