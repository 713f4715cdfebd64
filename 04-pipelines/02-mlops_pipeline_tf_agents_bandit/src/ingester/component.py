"""Ingester: the joined decisions of a window of time, checked, counted and sealed."""

from typing import NamedTuple

from kfp import dsl

from recbandits.platforms.pipelines import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingester(
    config: dict,
    features: str,
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
        features: directory or gs:// URI with the features by which the policy learns and serves, as `Features.save`
            writes them, and perhaps `titles.json`.
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
    from recbandits.data.features import Features
    from recbandits.loop.ingest import ingest, titles_of
    from recbandits.loop.settings import Join
    from recbandits.loop.steps import directory_of, platform_of, time_of
    from recbandits.loop.trigger import plan_now

    platform, rule, place = platform_of(config), Join(**join), directory_of(features)
    if end:
        begin, stop = time_of(start), time_of(end)
    else:
        begin, stop, serving = plan_now(platform, rule)
    known = Features.load(place)
    manifest = ingest(platform.warehouse, begin, stop, rule, known, dataset.path, holdout, titles_of(place))
    told = ("start", "end", "snapshot", "decisions", "held_out", "digest")
    dataset.metadata.update({name: manifest[name] for name in told}, planned_snapshot=snapshot)
    for name, count in manifest["counts"].items():
        metrics.log_metric(name, count)
    return (serving,)
