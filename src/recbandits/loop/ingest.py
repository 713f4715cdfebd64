"""From a log to the warehouse, and from there to a dataset: joined decisions, checked, counted, split and sealed."""

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbandits.checks import replacing, require, write_text
from recbandits.data.features import FILE as FEATURES
from recbandits.data.features import Features
from recbandits.platforms.warehouse import Join, Warehouse
from recbandits.records import Interaction, Log, Quarantined, Reward, from_table
from recbandits.serving.policy import read_titles

DECISIONS, MANIFEST, TITLES, TRAIN = "decisions.parquet", "manifest.json", "titles.json", "train"
TOPIC = "ingester"  # of the entries that are quarantined here
_LOG = ("interactions.parquet", "rewards.parquet")
_READINGS = 5  # at most, of a window in which events arrive meanwhile


def write_log(directory: str | Path, interactions: pa.Table, rewards: pa.Table) -> None:
    """Write tables of `Interaction`s and `Reward`s, as `Log.to_tables` returns them, as files that `read_log` reads."""
    for table, name in zip((interactions, rewards), _LOG, strict=True):
        with replacing(Path(directory, name)) as draft:
            pq.write_table(table, draft)


def read_log(directory: str | Path) -> tuple[pa.Table, ...]:
    """Read the tables of a log in a directory; ValueError where a file is missing or is not Parquet."""
    try:
        return tuple(pq.read_table(Path(directory, name)) for name in _LOG)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"log must be a directory with {' and '.join(_LOG)}: {error}") from error


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


def ingest(
    warehouse: Warehouse,
    start: datetime,
    end: datetime,
    rule: Join,
    features: Features,
    directory: str | Path,
    holdout: float = 0.3,
    titles: dict[str, str] | None = None,
) -> dict:
    """Write the joined decisions of a window as a dataset: the same data gives the same bytes.

    The directory gets `decisions.parquet` (all of them, by time, with the column `held_out`), TFRecords of those that
    are not held out (as `write_trajectories` says), `features.npz`, `titles.json` and, last, `manifest.json`; a dataset
    that is there is replaced. A decision is always held out, or never, by its id; the share `holdout` is in [0, 1). The
    window should end a window of the rule ago: later decisions may still get reports. Decisions among items that the
    features do not know, and on contexts that they cannot encode, are quarantined.

    Returns:
      dict, the manifest: start, end, the rule, holdout, snapshot; counts, which add up as those of `Warehouse.counts`,
      where what is quarantined here is quarantined and nothing else; reasons of the latter, and of rewards outside the
      range, without the values; decisions, held_out, candidates (the most of a decision), policy_versions, files
      (SHA-256 of each) and digest (of all of it).

    Raises:
      ValueError: a share that is none, or no decision to learn from.
    """
    require(0 <= holdout < 1, "holdout", "in [0, 1)", holdout)
    window = {"start": start.astimezone(UTC).isoformat(), "end": end.astimezone(UTC).isoformat()}
    table, reasons, counts, snapshot = _read(warehouse, start, end, rule, features)
    require(len(table) > 0, f"number of decisions from {window['start']} to {window['end']}", "at least 1", 0)
    held_out = are_held_out(table["event_id"].to_numpy(), holdout)
    manifest = {
        **window,
        **vars(rule),
        "holdout": holdout,
        "snapshot": snapshot,
        "counts": counts,
        "reasons": reasons,
        "decisions": len(table),
        "held_out": int(held_out.sum()),
        "candidates": pc.max(pc.list_value_length(table["candidates"])).as_py(),
        "policy_versions": dict(sorted(Counter(table["policy_version"].to_pylist()).items())),
        "files": _write(Path(directory), table, held_out, features, read_titles(titles)),
    }
    manifest["digest"] = _digest(manifest)
    write_text(Path(directory, MANIFEST), json.dumps(manifest, indent=1) + "\n")
    return manifest


def read_manifest(directory: str | Path) -> dict:
    """Read the manifest of a dataset and verify the digests of its files; ValueError for no complete dataset."""
    directory = Path(directory)
    if not (directory / MANIFEST).is_file():
        raise ValueError(f"{directory.name} must be the directory of a complete dataset, it has no {MANIFEST}")
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    digest = manifest.pop("digest")
    if _digest(manifest) != digest:
        raise ValueError(f"dataset {directory.name} is damaged, {MANIFEST} is not what was written")
    for name, expected in manifest["files"].items():
        if not (directory / name).is_file() or _hash(directory / name) != expected:
            raise ValueError(f"dataset {directory.name} is damaged, {name} is not what was written")
    return manifest | {"digest": digest}


def decisions_of(directory: str | Path, held_out: bool | None) -> Log:
    """Read the decisions of a dataset as a `Log`, ordered by time: held out, the others (False), or all (None)."""
    table = pq.read_table(Path(directory, DECISIONS))
    return log_of(table if held_out is None else table.filter(pc.equal(table["held_out"], held_out)))


def log_of(table: pa.Table) -> Log:
    """Return the `Log` of joined decisions, a table as `Warehouse.decisions` returns it."""
    columns = {"event_id": table["event_id"], "time": table["time"], "value": table["reward"]}
    return Log.from_tables(table, pa.table(columns))


def are_held_out(event_ids: np.ndarray, holdout: float) -> np.ndarray:
    """Select a share of decisions, bool [n]: those whose ids, text [n], have the smallest hashes, numbers in [0, 1)."""
    return pd.util.hash_array(event_ids) / 2.0**64 < holdout


def titles_of(directory: str | Path) -> dict[str, str]:
    """Read the titles of a dataset, dict from item id to title; empty where it has none."""
    file = Path(directory, TITLES)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write_titles(directory: Path, titles: dict[str, str]) -> None:
    """Write what `titles_of` reads."""
    write_text(directory / TITLES, json.dumps(titles, indent=1) + "\n")


def _read(warehouse, start, end, rule, features):
    """Read a window of a warehouse at one moment: joined decisions, reasons of refused ones, counts and snapshot.

    Refused decisions are quarantined before anything is counted, so that a second call returns the same. The window is
    read again if events arrived meanwhile, up to `_READINGS` times.
    """
    for _ in range(_READINGS):
        snapshot = warehouse.snapshot(start, end)
        table = warehouse.decisions(start, end, rule)
        reasons = _reasons(table, features)
        refused = table.filter(reasons != "")
        rows = zip(refused.select([*Interaction.fields, "reward"]).to_pylist(), reasons[reasons != ""], strict=True)
        warehouse.write(
            [
                Quarantined(f"{TOPIC}/{row['event_id']}", row["time"], TOPIC, reason, json.dumps(row, default=str))
                for row, reason in rows
            ]
        )
        counts = warehouse.counts(start, end, rule)._asdict()
        defaulted = refused["reward_time"].null_count  # refused decisions count as quarantined, not as joined too
        less = {"total": len(refused), "joined": len(refused) - defaulted, "defaulted": defaulted}
        number = Counter(reason.partition(", got ")[0] for reason in reasons if reason)
        outside = len(warehouse.outside(start, end, rule))
        number[f"reward must be in [{rule.lowest:g}, {rule.highest:g}]"] = outside
        if warehouse.snapshot(start, end) == snapshot:
            break
    counts = {name: count - less.get(name, 0) for name, count in counts.items()}
    return table.filter(reasons == ""), dict(sorted((+number).items())), counts, snapshot


def _reasons(table, features):
    """Find the reasons why features cannot read decisions, array of text [n]; empty where they can."""
    reasons, candidates = np.full(len(table), "", object), table["candidates"].combine_chunks()
    unknown = pc.invert(pc.is_in(candidates.flatten(), pa.array(features.item_ids, pa.string())))
    reasons[pc.list_parent_indices(candidates).filter(unknown).to_numpy()] = "candidates must be items with features"
    inputs = list(zip(table["context"].to_pylist(), table["candidate_features"].to_pylist(), strict=True))
    reason_of = {texts: _reason(*map(json.loads, texts), features) for texts in set(inputs)}
    context_reasons = np.array([reason_of[texts] for texts in inputs], object)
    return np.where(context_reasons != "", context_reasons, reasons)


def _reason(context, numbers, features):
    """Find the reason why features cannot read a context and numbers of candidates; empty text where they can."""
    if set(numbers) != set(features.candidate_features):
        expected, actual = (", ".join(names) or "none" for names in (features.candidate_features, numbers))
        return f"candidate_features must be {expected}, got {actual}"
    try:
        features.context_encoder.encode_row(context)
    except ValueError as error:
        return f"context: {error}"
    return ""


def _write(directory, table, held_out, features, titles):
    """Write everything but the manifest; return the SHA-256 of each file."""
    from recbandits.data.trajectories import write_trajectories  # needs TensorFlow

    (directory / MANIFEST).unlink(missing_ok=True)
    with replacing(directory / DECISIONS) as draft:
        pq.write_table(table.append_column("held_out", pa.array(held_out)), draft)
    records = write_trajectories(log_of(table.filter(~held_out)), features, directory, TRAIN)
    features.save(directory)
    write_titles(directory, titles)
    names = [DECISIONS, *(file.name for file in records), FEATURES, TITLES]
    return {name: _hash(directory / name) for name in names}


def _hash(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _digest(manifest):
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
