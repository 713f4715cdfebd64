"""The bound of the scaling benchmark counts what LinUCB needs, and its answers are those of the policy."""

import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.bound import count_linear_operations


def test_the_operations_of_a_score_are_those_of_its_packed_form():
    """Mean and squared width are one product of the packed numbers of the context with coefficients of the action."""
    rng, size = np.random.default_rng(0), 20
    context, theta, root = rng.normal(size=size), rng.normal(size=size), rng.normal(size=(size, size))
    inverse = root @ root.T
    row, column = np.triu_indices(size)
    packed = np.concatenate([context[row] * context[column], context])
    coefficients = np.concatenate([inverse[row, column] * np.where(row == column, 1, 2), theta])
    assert packed @ coefficients == pytest.approx(theta @ context + context @ inverse @ context)
    assert len(packed) == 230
    assert count_linear_operations(100, size) == 2 * 100 * len(packed) + 4 * size**2


def test_a_curve_has_a_speed_and_a_share_of_the_bound(monkeypatch):
    """Half the rate of the matrix product doubles the share."""
    monkeypatch.setattr(scaling, "SIMULATIONS", {"actions": (5,)})
    monkeypatch.setattr(scaling, "own_loop", lambda environment, steps: lambda: 1000.0)
    shares = []
    for rate in (1e9, 5e8):
        monkeypatch.setattr(scaling, "measure_gemm", lambda rate=rate: rate)
        (row,) = scaling.measure_simulation().itertuples()
        assert (row.varied, row.value, row.speed) == ("actions", 5, 1000.0)
        shares.append(row.share)
    assert shares == pytest.approx(
        [1000 * count_linear_operations(5, 20) / 1e9, 1000 * count_linear_operations(5, 20) / 5e8]
    )
