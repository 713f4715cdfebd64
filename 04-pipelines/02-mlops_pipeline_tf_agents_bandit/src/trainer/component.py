"""Trainer: what serves learns on from what is new."""

from kfp import dsl

from recbandits.platforms.pipelines import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def trainer(
    config: dict,
    dataset: dsl.Input[dsl.Dataset],
    serving: str,
    agent: dict,
    exploration: dict,
    seed: int,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Train a candidate: one pass over the events that its parent has not learnt yet.

    Args:
        config: settings of the project.
        dataset: from the Ingester.
        serving: version to go on from; empty begins with nothing.
        agent: parameters of LinUCB.
        exploration: name and value of the way to explore when it serves.
        seed: of the agent.
        model: the policy to serve, and the agent that learns on.
        metrics: numbers of events learnt now and in all.
    """
    from recbandits.agents.parameters import LinUCB
    from recbandits.exploration import Exploration
    from recbandits.loop.steps import model_of, platform_of
    from recbandits.loop.train import train

    parent = model_of(platform_of(config), serving)
    done = train(dataset.path, model.path, LinUCB(**agent), Exploration(**exploration), parent, seed)
    model.metadata.update(version=done["version"], parent=done["parent"] or "")
    for name in ("new", "learnt"):
        metrics.log_metric(name, done[name])
