"""The bound that speeds are compared with: floating-point operations at the rate of a large matrix product."""

import time

from recbandits.tf import tf

import numpy as np


def count_linear_operations(actions, size):
    """Count the fewest floating-point operations of an interaction with LinUCB and one model for each action.

    The scores of an action are a product of K (K + 1) / 2 + K numbers (the packed outer product of the context, and
    the context) with as many coefficients; the rank-one update of an inverse takes 4 K^2 operations.
    """
    return 2 * (size * (size + 1) / 2 + size) * actions + 4 * size**2


def measure_gemm(size=2048, count=8):
    """Measure the floating-point operations per second of a product of two float32 matrices [size, size]."""
    left, right = (tf.random.normal([size, size]) for _ in range(2))
    product = tf.function(lambda: tf.matmul(left, right)).get_concrete_function()
    product().numpy()
    start = time.perf_counter()
    for _ in range(count):
        result = product()
    result.numpy()  # on a GPU, products are only queued before this line
    return 2 * size**3 * count / (time.perf_counter() - start)


def as_share(value):
    """Give a share as text in per cent, with two digits that count."""
    return f"{np.format_float_positional(100 * value, precision=2, fractional=False, trim='-')} %"
