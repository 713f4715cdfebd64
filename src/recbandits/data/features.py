"""Features of decisions from raw columns: of the context, of the items, and of both together."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from recbandits.checks import replacing, require
from recbandits.data.encoder import Encoder
from recbandits.records.log import Log, as_ids

GLOBAL, PER_ARM = "global", "per_arm"  # parts of an observation, by TF-Agents' names
FILE = "features.npz"
_PART_BYTES = 64 * 2**20
_PAIRS = "pairs (column of the context, column of the items)"


@dataclass(frozen=True, eq=False)
class Features:
    """Features of requests and items, fitted to raw columns and sealed into the policy that was trained on them.

    Attributes:
      item_ids: text ids, in the order of `items`.
      items: encoded columns of the items, float32 [items, numbers].
      item_encoder: of the raw columns of items.
      context_encoder: of the raw columns of requests.
      crosses: pairs (column of the context, column of the items), whose products are features. A linear model shared by
        all items orders them alike for all users if there are none. Two vectors become their dot product, and are no
        features themselves: a new fit of embeddings rotates them, but the dot product stays.
      products: pairs of vectors of the same size, whose element-wise products are features, as are the vectors.
      candidate_features: names of numbers that come with each candidate of each request, such as its price.
      intercept: whether a constant 1 comes before the context, without which a linear model predicts 0 where nothing is
        known of a request and an item. A context without columns is a constant 1 in any case.
    """

    item_ids: pd.Index
    items: np.ndarray
    item_encoder: Encoder
    context_encoder: Encoder
    crosses: tuple[tuple[str, str], ...] = ()
    products: tuple[tuple[str, str], ...] = ()
    candidate_features: tuple[str, ...] = ()
    intercept: bool = True

    def __post_init__(self) -> None:
        for field, pairs in (("crosses", self.crosses), ("products", self.products)):
            for pair in pairs:
                require(len(pair) == 2, field, _PAIRS, pair)
                for name, encoder, owner in zip(pair, self._encoders, ("context", "items"), strict=True):
                    expected = f"among {', '.join(encoder.columns) or 'none'}"
                    require(name in encoder.columns, f"column of the {owner} in {field}", expected, name)
                sizes = self._sizes(pair)
                vectors = field == "crosses" or None not in sizes
                require(vectors, f"columns {pair[0]!r} and {pair[1]!r} in products", "vectors", sizes)
                equal = None in sizes or sizes[0] == sizes[1]
                require(equal, f"vectors {pair[0]!r} and {pair[1]!r}", "of the same size", sizes)

    @classmethod
    def fit(
        cls,
        items: pd.DataFrame,
        context: Log | pd.DataFrame,
        crosses: Sequence[Sequence[str]] = (),
        max_levels: int = 100,
        vectors: Sequence[str] = (),
        categories: Sequence[str] = (),
    ) -> Self:
        """Fit the features to a table of items and to what was known of requests.

        Args:
          items: raw columns, indexed by the ids.
          context: a log, only the part that is learned from; or raw columns of requests alone.
          crosses: as the attribute.
          max_levels: as for `Encoder.fit`.
          vectors: names of vectors, in either table.
          categories: columns of numbers that are categories, in either table.

        Raises:
          ValueError: as `Encoder.fit`, or a name that is in neither table.
        """
        table, numbers = (context.context, context.candidate_features) if isinstance(context, Log) else (context, ())
        item_encoder, context_encoder = (
            Encoder.fit(
                each,
                max_levels,
                [name for name in vectors if name in each or f"{name}_0" in each],
                [name for name in categories if name in each],
            )
            for each in (items, table)
        )
        for name in (*vectors, *categories):
            known = name in {**item_encoder.columns, **context_encoder.columns}
            require(known, "vectors and categories", "columns of the context or of the items", name)
        for pair in crosses:  # a text has letters instead of columns
            require(not isinstance(pair, str) and len(pair) == 2, "crosses", _PAIRS, pair)
        ids, pairs = as_ids(items.index, "items"), tuple((str(first), str(second)) for first, second in crosses)
        values = item_encoder.encode(items)
        return cls(ids, values, item_encoder, context_encoder, pairs, candidate_features=tuple(numbers))

    @property
    def depends_on_both(self) -> bool:
        """True if a feature depends on the request and the item together."""
        return bool(self.crosses or self.products or self.candidate_features)

    def without_crosses(self) -> Self:
        """Return the same features without products of columns; the dot product of two vectors, one number, stays."""
        return replace(self, crosses=tuple(pair for pair in self.crosses if None not in self._sizes(pair)))

    def context(self, encoded: np.ndarray) -> np.ndarray:
        """Make the part `global` of an observation, float32 [n, G], from encoded contexts [n, numbers]."""
        values = encoded[:, self.context_columns]
        if self.intercept or not values.shape[1]:
            values = np.concatenate([np.ones((len(values), 1), np.float32), values], axis=1)
        return values

    def per_arm(self, encoded: np.ndarray, items: np.ndarray, numbers: Sequence[np.ndarray] = ()) -> np.ndarray:
        """Make the part `per_arm` of an observation, float32 [n, k, D].

        Args:
          encoded: contexts, float32 [n, numbers].
          items: encoded candidates, float32 [n, k, numbers].
          numbers: float [n, k] for each of `candidate_features`.
        """
        parts = [items[:, :, self.item_columns]]
        parts += [np.asarray(values, np.float32)[:, :, None] for values in numbers]
        for pair in self.crosses:
            left, right = self._select(pair, encoded, items)
            if None in self._sizes(pair):
                shape = (*items.shape[:2], left.shape[-1] * right.shape[-1])  # -1 has no size where n or k is 0
                parts.append((left[:, None, :, None] * right[:, :, None, :]).reshape(shape))
            else:
                parts.append(np.einsum("nf,nkf->nk", left, right)[:, :, None])
        for pair in self.products:
            left, right = self._select(pair, encoded, items)
            parts.append(left[:, None, :] * right)
        return np.concatenate(parts, axis=2, dtype=np.float32)

    @cached_property
    def context_columns(self) -> np.ndarray | slice:
        """Positions of the encoded numbers of a context that are features themselves, int [m] or a slice."""
        return self._scalars(0)

    @cached_property
    def item_columns(self) -> np.ndarray | slice:
        """Positions of the encoded numbers of an item that are features themselves, int [m] or a slice."""
        return self._scalars(1)

    def spec(self, candidates: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one decision's observation, as `training.Specs` takes them."""
        encoded = np.zeros((1, len(self.context_encoder.names)), np.float32)
        arm = self.per_arm(encoded, self.items[None, :1], [np.zeros((1, 1))] * len(self.candidate_features))
        return {GLOBAL: self.context(encoded).shape[1:], PER_ARM: (candidates, arm.shape[2])}

    def observe(self, log: Log, cells: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Make the features of the candidates where `cells` bool [n, k] are True, in parts of about 64 MiB at most.

        Yields:
          (context float32 [m, G], per arm float32 [m, D]), one row for each wanted candidate, decision by decision; at
          least one part.

        Raises:
          KeyError: an item of the log that is not known.
          ValueError: columns or numbers of candidates that do not fit.
        """
        log.require_ids()
        names = self.candidate_features
        expected = f"those that the features were fitted with, {', '.join(names) or 'none'}"
        require(set(names) == set(log.candidate_features), "candidate features", expected, list(log.candidate_features))
        decision, column = np.nonzero(cells)
        items = log.candidates[cells]
        encoded, rows = self.context_encoder.encode(log.context), self.item_ids.get_indexer(log.item_ids)[items]
        if (rows < 0).any():
            raise KeyError(f"unknown item ids: {', '.join(sorted(set(log.item_ids[items[rows < 0]]))[:10])}")
        context, width = self.context(encoded), self.spec(1)[PER_ARM][1]
        size = max(1, _PART_BYTES // (4 * (context.shape[1] + width + self.items.shape[1] + encoded.shape[1])))
        for start in range(0, max(1, len(rows)), size):
            part = slice(start, start + size)
            numbers = [log.candidate_features[name][decision[part], column[part], None] for name in names]
            arm = self.per_arm(encoded[decision[part]], self.items[rows[part], None], numbers)
            yield context[decision[part]], arm[:, 0]

    def save(self, directory: str | PathLike) -> None:
        """Write the features into a directory, created if missing; equal features give equal bytes."""
        settings = {
            "item_ids": self.item_ids.tolist(),
            "items": self.item_encoder.columns,
            "context": self.context_encoder.columns,
            "crosses": self.crosses,
            "products": self.products,
            "candidate_features": self.candidate_features,
            "intercept": self.intercept,
        }
        text = np.frombuffer(json.dumps(settings, ensure_ascii=False, allow_nan=False).encode(), np.uint8)
        with replacing(Path(directory, FILE)) as draft, draft.open("wb") as file:
            np.savez(file, values=self.items, settings=text)

    @classmethod
    def load(cls, directory: str | PathLike | io.IOBase) -> Self:
        """Read features that `save` wrote, from a directory or an open file."""
        file = Path(directory, FILE) if isinstance(directory, (str, PathLike)) else directory
        with np.load(file, allow_pickle=False) as parts:
            values, settings = parts["values"], json.loads(parts["settings"].tobytes())
        encoders = Encoder(settings["items"]), Encoder(settings["context"])
        crosses, products = (tuple(map(tuple, settings[name])) for name in ("crosses", "products"))
        numbers, item_ids = tuple(settings["candidate_features"]), as_ids(settings["item_ids"], "items")
        return cls(item_ids, values, *encoders, crosses, products, numbers, settings["intercept"])

    @property
    def _encoders(self) -> tuple[Encoder, Encoder]:
        return self.context_encoder, self.item_encoder

    def _sizes(self, pair: tuple[str, str]) -> list[int | None]:
        """Return the sizes of a column of the context and one of the items, None for one that is no vector."""
        return [encoder.columns[name].get("size") for encoder, name in zip(self._encoders, pair, strict=True)]

    def _select(self, pair: tuple[str, str], encoded: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Select the numbers of a column of the context, [n, numbers], and of one of the items, [n, k, numbers]."""
        return encoded[:, self.context_encoder.blocks[pair[0]]], items[:, :, self.item_encoder.blocks[pair[1]]]

    def _scalars(self, side: int) -> np.ndarray | slice:
        """Return the positions of all numbers of a side but those of vectors in a dot product."""
        multiplied = {pair[side] for pair in self.crosses if None not in self._sizes(pair)}
        blocks = self._encoders[side].blocks.items()
        parts = [np.arange(part.start, part.stop) for name, part in blocks if name not in multiplied]
        positions = np.concatenate([np.zeros(0, int), *parts])
        first = np.array_equal(positions, np.arange(len(positions)))
        return slice(len(positions)) if first else positions  # a slice of an array needs no copy
