"""First interactions, before there is anything to serve: a uniform policy that logs its propensities."""

import uuid
from datetime import UTC, timedelta

import numpy as np

UNIFORM = "uniform"  # the version of the policy
_NAMES = uuid.UUID("5f0c1b1e-6d0a-5c39-9d2f-8a5e8c1f7b60")  # a namespace of our own


def generate(world, warehouse, n, start, seed=0, seconds=60.0, candidates=10):
    """Write the first interactions of a world, and what people report of them, to the warehouse.

    Doing so again has no further effect: an event's name follows from all that is asked for, and from its number. Other
    decisions never get the same names, so that none is joined with the reward of another.

    Args:
      world: `SimulatedUsers`
      warehouse: `Warehouse`
      n: number of decisions.
      start: datetime with a zone, of the first one.
      seed: of who comes, what is shown and what is reported.
      seconds: from the first decision to the end of the last one's turn; they come evenly.
      candidates: of a decision, each as likely to be shown as any other.

    Returns:
      dict of decisions (how many there are), rewards (how many reports), written (rows that are new to the warehouse),
      policy_version, start and end (ISO 8601; no decision is at or after it).

    Raises:
      ValueError: not one decision or more, or seconds that are not positive.
      PlatformError: of the warehouse.
    """
    if not (n >= 1 and seconds > 0):
        raise ValueError(f"n must be at least 1 and seconds positive, got {n} and {seconds}")
    rng = np.random.default_rng(seed)
    users, items = world.visits(n, rng, candidates)
    action = rng.integers(candidates, size=n)
    values = world.rate(world.expected(users, items)[np.arange(n), action], rng)
    batch = uuid.uuid5(_NAMES, f"{seed} {n} {candidates} {start.astimezone(UTC).isoformat()} {float(seconds)}")
    event_ids = [uuid.uuid5(batch, str(row)).hex for row in range(n)]
    times = [start + timedelta(seconds=seconds * row / n) for row in range(n)]
    versions, propensity = [UNIFORM] * n, np.full(n, 1.0 / candidates)
    interactions = world.interactions((users, items), event_ids, times, versions, action, propensity)
    rewards = world.reports(event_ids, times, values, rng)
    return {
        "decisions": n,
        "rewards": len(rewards),
        "written": warehouse.write([*interactions, *rewards]),
        "policy_version": UNIFORM,
        "start": start.isoformat(),
        "end": (start + timedelta(seconds=seconds)).isoformat(),
    }
