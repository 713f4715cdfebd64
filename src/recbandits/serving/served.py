"""A policy that serves raw columns: contexts in, text ids, scores and propensities out, by NumPy alone."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbandits.checks import require
from recbandits.data.policy_features import Features
from recbandits.exploration import Exploration, draw_slate
from recbandits.exploration.probabilities import Rng
from recbandits.serving.decisions import Recommendation
from recbandits.serving.scorer import Scorer
from recbandits.serving.summary import TrainingSummary


class ServedPolicy:
    """A policy exported with `Features`; it may be used by many threads, and after a fork.

    Attributes:
      version: 16 hexadecimal digits, of all that was exported; the same policy exported again has the same.
      exploration: `Exploration`
      features: the `Features` it was exported with.
      summary: `TrainingSummary`, or None.
    """

    def __init__(self, settings: dict, scorer: Scorer, features: Features):
        self.features, self._scorer = features, scorer
        self.version, self.exploration = settings["version"], Exploration(**settings["exploration"])
        self.summary = TrainingSummary(**settings["summary"]) if settings["summary"] else None
        self._titles = settings["titles"]

    def recommend(
        self,
        context: Mapping[str, Any] | None = None,
        candidates: Sequence[str] | None = None,
        k: int = 1,
        rng: Rng = None,
        candidate_features: Mapping[str, Sequence[float]] | None = None,
        new_items: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Recommendation:
        """Choose an item for a request, and the next best ones; or a whole slate, where the exploration draws slates.

        Args:
          context: what is known of the request, by raw columns; what is missing is the mean, or no level.
          candidates: ids to choose from, different from each other; None for all.
          k: how many items, at most as many as candidates.
          rng: None for fresh randomness, different in every process; a seed, or a `numpy.random.Generator`.
          candidate_features: from name to a number for each candidate; needed where the policy was trained on them.
          new_items: from the id of a candidate, known or not, to its raw columns. They are candidates where none are
            named.

        Raises:
          KeyError: unknown ids, by name.
          ValueError: a context, candidates or numbers that are not as above.
        """
        new_items = {str(name): columns for name, columns in (new_items or {}).items()}
        ids, items = self._choose_from(candidates, new_items)
        encoded = self.features.context_encoder.encode_row(context or {})[None]
        numbers = self._read_numbers(candidate_features or {}, len(ids))
        per_arm = self.features.per_arm(encoded, items[None], numbers)
        scores = self._scorer.scores(self.features.context(encoded), per_arm)[0].astype(float)
        chosen, propensities = draw_slate(self.exploration, scores, k, rng)
        names = [ids[column] for column in chosen]
        return Recommendation(
            event_id=uuid.uuid4().hex,
            policy_version=self.version,
            user_id=None,
            item_ids=names,
            titles=[self._titles.get(name, name) for name in names],
            scores=scores.take(chosen).tolist(),
            propensity=propensities[0],
            candidates=ids,
            context=dict(context or {}),
            propensities=propensities,
        )

    def score_pairs(self, context: np.ndarray, arm: np.ndarray) -> np.ndarray:
        """Score pairs of a context float32 [n, G] and an arm float32 [n, D], float32 [n]."""
        return self._scorer.scores(np.asarray(context), np.asarray(arm))

    def _choose_from(self, candidates, new_items):
        """Return the ids of the candidates, and their encoded columns float32 [c, numbers]."""
        known = self.features.item_ids
        if candidates is None and not new_items:
            return known.tolist(), self.features.items
        if candidates is None:
            candidates = [*known, *(name for name in new_items if name not in known)]
        ids = [str(name) for name in candidates]
        require(bool(ids) and len(set(ids)) == len(ids), "candidates", "one or more ids, all different", ids)
        for name in new_items:
            require(name in ids, "new_items", "among the candidates", name)
        items = np.zeros((len(ids), self.features.items.shape[1]), np.float32)
        named = [row for row, name in enumerate(ids) if name not in new_items]
        items[named] = self.features.items[self.features.find_rows([ids[row] for row in named])]
        for row, name in enumerate(ids):
            if name in new_items:
                items[row] = self.features.item_encoder.encode_row(new_items[name])
        return ids, items

    def _read_numbers(self, candidate_features, count):
        """Return an array [1, candidates] for each feature of candidates that the policy was trained on."""
        expected = self.features.candidate_features
        require(
            set(candidate_features) == set(expected),
            "candidate_features",
            f"{', '.join(expected) or 'none'}",
            list(candidate_features),
        )
        numbers = [np.asarray(candidate_features[name], float)[None] for name in expected]
        for name, values in zip(expected, numbers, strict=True):
            good = values.shape == (1, count) and np.isfinite(values).all()
            require(good, f"candidate feature {name!r}", f"{count} finite numbers, one for each candidate", values[0])
        return numbers
