"""Train the next model: one pass over the events that are new to the one that serves."""

import tempfile
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from recbandits.tf import tf

import numpy as np

from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import LinUCB
from recbandits.data.examples import Examples
from recbandits.data.features import FILE as FEATURES
from recbandits.data.features import Features
from recbandits.data.tfrecords import find_records
from recbandits.data.trajectories import read_examples
from recbandits.exploration import Exploration
from recbandits.loop.ingest import TRAIN, read_manifest, titles_of
from recbandits.loop.models import AGENT, POLICY, read_model, write_model
from recbandits.serving.policy import TrainingSummary, export, load
from recbandits.training.offline import Specs, fit


def train(
    dataset: str | Path,
    model_dir: str | Path,
    parameters: LinUCB,
    exploration: Exploration,
    serving: str | Path | None = None,
    seed: int = 0,
) -> dict:
    """Train the model of the next round.

    The same dataset and parent give the same version, in any order and number of deliveries. A process that is killed
    leaves no model rather than a part of one.

    Args:
      dataset: directory that `ingest` wrote.
      model_dir: directory for the model, as `models` describes it.
      parameters: `LinUCB`. Its `gamma` is the weight of all earlier events at each training.
      exploration: `Exploration` with which the policy is to serve.
      serving: directory of the parent; None for none.
      seed: of the agent's draws; what it learns does not depend on it.

    Returns:
      dict of version, parent, new (events learnt now) and learnt (in all). Without a new event the version is the
      parent's.

    Raises:
      ValueError: a dataset or a parent that is not complete, features that are not those of the parent, or no event to
        learn from.
    """
    manifest, parent = (read_manifest(dataset), None if serving is None else read_model(serving))
    if parent is not None:
        _check_features(dataset, parent)
    agent = learner(Features.load(dataset), manifest["candidates"], parameters, seed)
    if parent is not None:
        tf.train.Checkpoint(agent=agent).read(str(parent.agent)).assert_existing_objects_matched().expect_partial()
    new = (
        learn(agent, read_examples(find_records(dataset, TRAIN))) if manifest["decisions"] > manifest["held_out"] else 0
    )
    until = datetime.fromisoformat(manifest["end"])
    if parent is not None:
        until = max(until, parent.until)
    if new:
        facts: dict[str, Any] = {
            "parent": parent and parent.version,
            "learnt": len(agent.learned_events.numpy()),
            "until": until.isoformat(),
        }
        facts |= {"parameters": asdict(parameters), "exploration": asdict(exploration)}
        model = _write(agent, dataset, model_dir, facts)
    elif parent is not None:
        model = _write_parent(parent, model_dir, until)
    else:
        raise ValueError("decisions must be at least one to learn from, the dataset has none that is not held out")
    return {"version": model.version, "parent": model.parent, "new": new, "learnt": model.learnt}


def learner(features: Features, candidates: int, parameters: LinUCB, seed: int = 0) -> Any:
    """Make a TF-Agents agent, one linear model for all arms, for decisions with so many candidates."""
    return make_agent(parameters, Specs(features.spec(candidates)), seed)


def learn(agent: Any, examples: Examples) -> int:
    """Train an agent on the `Examples` of events that are new to it, in one batch; return the number of these events.

    They are sorted by their hashes first: sums of floats depend on the order of their terms, and a policy is not to
    depend on the order of delivery.
    """
    events, rows = np.unique(examples.event, return_index=True)
    rows = rows[~np.isin(events, agent.learned_events.numpy())]
    if len(rows):
        fit(agent, Examples(*(column[rows] for column in examples)), batch_size=len(rows))
    return len(rows)


def _check_features(dataset, parent):
    new, old = (Path(directory, FEATURES).read_bytes() for directory in (dataset, parent.policy))
    if new != old:
        raise ValueError(
            f"the features of the dataset must be those of {parent.version}, the model to go on from, they are others"
        )


def _write(agent, dataset, model_dir, facts):
    exploration = Exploration(**facts["exploration"])
    summary = TrainingSummary(f"{facts['learnt']:,} logged decisions", "LinUCB", facts["parameters"])
    options = {"exploration": exploration, "titles": titles_of(dataset), "summary": summary}
    with tempfile.TemporaryDirectory() as draft:
        tf.train.Checkpoint(agent=agent).write(str(Path(draft, AGENT, "checkpoint")))
        policy = export(agent.policy, Path(draft, POLICY), Features.load(dataset), **options)
        return write_model(draft, model_dir, {"version": load(policy).version, **facts})


def _write_parent(parent, model_dir, until):
    """Write the parent again, with the end of the new data."""
    facts = {"version": parent.version, "parent": parent.parent, "learnt": parent.learnt}
    facts |= {"until": until.isoformat(), "parameters": asdict(parent.parameters)}
    return write_model(parent.directory, model_dir, {**facts, "exploration": asdict(parent.exploration)})
