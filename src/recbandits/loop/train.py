"""Train the next model: one pass over the events that are new to the one that serves."""

import tempfile
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
from recbandits.loop.models import AGENT, POLICY, Model, read_model, write_model
from recbandits.serving.policy import TrainingSummary, export, load
from recbandits.training.offline import Specs, fit


def train(
    dataset: str | Path,
    model_dir: str | Path,
    parameters: LinUCB,
    exploration: Exploration,
    serving: str | Path | None = None,
) -> dict:
    """Train the model of the next round.

    The same dataset and parent give the same version, in any order and number of deliveries.

    Args:
      dataset: directory that `ingest` wrote.
      model_dir: directory for the model, as `models` describes it.
      parameters: of the agent. Its `gamma` is the weight of all earlier events at each training.
      exploration: with which the policy is to serve.
      serving: directory of the parent; None for none.

    Returns:
      dict of version, which without a new event is the parent's, parent, new (events learnt now) and learnt (in all).

    Raises:
      ValueError: an incomplete dataset or parent, other features than those of the parent, or no event to learn from.
    """
    manifest, parent = (read_manifest(dataset), None if serving is None else read_model(serving))
    features, until, new = Features.load(dataset), datetime.fromisoformat(manifest["end"]), 0
    agent = learner(features, manifest["candidates"], parameters)
    if parent is not None:
        until = max(until, parent.until)
        if Path(dataset, FEATURES).read_bytes() != (parent.policy / FEATURES).read_bytes():
            expected = f"those of {parent.version}, the model to go on from"
            raise ValueError(f"the features of the dataset must be {expected}, they are others")
        read = tf.train.Checkpoint(agent=agent).read(str(parent.directory / AGENT / "checkpoint"))
        read.assert_existing_objects_matched().expect_partial()
    if manifest["decisions"] > manifest["held_out"]:
        new = learn(agent, read_examples(find_records(dataset, TRAIN)))
    if new:
        learnt = len(agent.learned_events.numpy())
        summary = TrainingSummary(f"{learnt:,} logged decisions", "LinUCB", vars(parameters))
        options: dict[str, Any] = {"exploration": exploration, "titles": titles_of(dataset), "summary": summary}
        with tempfile.TemporaryDirectory() as draft:
            tf.train.Checkpoint(agent=agent).write(str(Path(draft, AGENT, "checkpoint")))
            version = load(export(agent.policy, Path(draft, POLICY), features, **options)).version
            name = parent and parent.version
            model = write_model(draft, Model(Path(model_dir), version, name, learnt, until, parameters, exploration))
    elif parent is not None:
        model = write_model(parent.directory, parent._replace(directory=Path(model_dir), until=until))
    else:
        raise ValueError("decisions must be at least one to learn from, the dataset has none that is not held out")
    return {"version": model.version, "parent": model.parent, "new": new, "learnt": model.learnt}


def learner(features: Features, candidates: int, parameters: LinUCB) -> Any:
    """Make a TF-Agents agent, one linear model for all arms, for decisions with so many candidates."""
    return make_agent(parameters, Specs(features.spec(candidates)))


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
