"""Decisions and rewards of the past: from Parquet files into the warehouse. Simulated users are one source of them."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbandits.checks import POSITIVE, replacing, require, require_each, whole
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.platforms.warehouse import Warehouse
from recbandits.records import Interaction, Reward, from_table, to_table

UNIFORM = "uniform"  # version of the policy of simulated logs
_FILES = ("interactions.parquet", "rewards.parquet")
_NAMESPACE = uuid.UUID("5f0c1b1e-6d0a-5c39-9d2f-8a5e8c1f7b60")  # of the event ids of simulated logs


def write_log(directory: str | Path, interactions: pa.Table, rewards: pa.Table) -> None:
    """Write tables of `Interaction`s and `Reward`s, as `Log.to_tables` returns them, as files that `read_log` reads."""
    for table, name in zip((interactions, rewards), _FILES, strict=True):
        with replacing(Path(directory, name)) as draft:
            pq.write_table(table, draft)


def write_first_log(directory: str | Path, users: SimulatedUsers, settings: Settings, now: datetime) -> None:
    """Write the first decisions of a loop by a uniform random policy, so old that their rewards are there by `now`."""
    seconds = settings.first / settings.rate
    start = now - timedelta(seconds=2 * settings.join.window + seconds)
    write_log(directory, *simulate_log(users, settings.first, start, seconds, settings.candidates, settings.seed))


def read_log(directory: str | Path) -> tuple[pa.Table, ...]:
    """Read the tables of a log in a directory; ValueError where a file is missing or is not Parquet."""
    try:
        return tuple(pq.read_table(Path(directory, name)) for name in _FILES)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"log must be a directory with {' and '.join(_FILES)}: {error}") from error


def import_log(warehouse: Warehouse, interactions: pa.Table, rewards: pa.Table) -> dict:
    """Write decisions, at least one, and their rewards to the warehouse; doing it again has no further effect.

    The dict has decisions and rewards (rows), written (rows that are new to the warehouse), start and end (ISO 8601; of
    the first decision, and just after the last one). ValueError for no decision, or a row that makes no record.
    """
    decisions, reports = (from_table(interactions, Interaction), from_table(rewards, Reward))
    require(len(decisions) > 0, "log", "of at least one decision", "none")
    times = [decision.time for decision in decisions]
    return {
        "decisions": len(decisions),
        "rewards": len(reports),
        "written": warehouse.write([*decisions, *reports]),
        "start": min(times).isoformat(),
        "end": (max(times) + timedelta(microseconds=1)).isoformat(),
    }


def simulate_log(
    users: SimulatedUsers, n: int, start: datetime, seconds: float = 60.0, candidates: int = 10, seed: int = 0
) -> tuple[pa.Table, pa.Table]:
    """Simulate n decisions of a uniform random policy among so many candidates, and what the users report of them.

    The decisions come evenly within some seconds from the aware datetime `start`. The same arguments give the same log.
    Other arguments give other event ids, so that no decision gets the reward of another one.
    They are a table of `Interaction`s and one of `Reward`s. ValueError for n or seconds that are not positive.
    """
    require_each(whole(), n=n)
    require_each(POSITIVE, seconds=seconds)
    rng = np.random.default_rng(seed)
    people, items = users.visits(n, rng, candidates)
    action = rng.integers(candidates, size=n)
    ratings = users.rate(users.expected(people, items)[np.arange(n), action], rng)
    batch = uuid.uuid5(_NAMESPACE, f"{seed} {n} {candidates} {start.astimezone(UTC).isoformat()} {float(seconds)}")
    event_ids = [uuid.uuid5(batch, str(row)).hex for row in range(n)]
    times = [start + timedelta(seconds=seconds * row / n) for row in range(n)]
    propensity = np.full(n, 1.0 / candidates)
    decisions = users.interactions((people, items), event_ids, times, [UNIFORM] * n, action, propensity)
    return to_table(decisions, Interaction), to_table(users.reports(event_ids, times, ratings, rng), Reward)
