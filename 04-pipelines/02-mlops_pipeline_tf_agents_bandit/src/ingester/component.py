"""Ingester: the joined decisions of a window of time, checked, counted and sealed."""

from typing import NamedTuple

from kfp import dsl

from recbandits.platforms.pipelines import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingester(
    config: dict,
    world: str,
    start: str,
    end: str,
    serving: str,
    snapshot: str,
    join: dict,
    holdout: float,
    dataset: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Planned", [("serving", str)]):
    """Read a window of time into a dataset with a manifest; what cannot be learnt from is quarantined.

    Args:
        config: settings of the project.
        world: directory or gs:// URI of the simulated users, whose features a policy sees.
        start: time from which on decisions are read, ISO 8601.
        end: time before which; empty to plan the window now, by what serves and what has been logged.
        serving: version that serves, for the steps that follow; empty for none.
        snapshot: what the warehouse had of that time when it was planned. It is part of the key by which this step is
            cached: other data, another dataset.
        join: rule for rewards, `loop.settings.Join` as a dict.
        holdout: share of the decisions that the learner does not see.
        dataset: decisions, TFRecords, features and manifest.
        metrics: the manifest's counts, which add up.

    Returns:
        serving, as given or as planned.
    """
    from recbandits.loop.ingest import ingest
    from recbandits.loop.settings import Join
    from recbandits.loop.steps import directory_of, platform_of, time_of
    from recbandits.loop.trigger import plan_now
    from recbandits.loop.world import World

    platform, rule, people = platform_of(config), Join(**join), World.load(directory_of(world))
    if end:
        begin, stop = time_of(start), time_of(end)
    else:
        begin, stop, serving = plan_now(platform, rule)
    titles = dict(zip(people.movie_ids.tolist(), people.titles, strict=True))
    manifest = ingest(platform.warehouse, begin, stop, rule, people.bundle(), dataset.path, holdout, titles)
    told = ("start", "end", "snapshot", "decisions", "held_out", "digest")
    dataset.metadata.update({name: manifest[name] for name in told}, planned_snapshot=snapshot)
    for name, count in manifest["counts"].items():
        metrics.log_metric(name, count)
    return (serving,)
