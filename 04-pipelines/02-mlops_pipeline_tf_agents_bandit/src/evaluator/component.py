"""Evaluator: the candidate against what serves, on logged decisions that it has not learnt from."""

from kfp import dsl

from recbandits.platforms.pipelines import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluator(
    config: dict,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    serving: str,
    gate: dict,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> str:
    """Estimate both policies off-policy and judge the candidate; the gate is in the judgement, not in the graph.

    Args:
        config: settings of the project.
        dataset: from the Ingester.
        model: the candidate.
        serving: version that serves.
        gate: what the candidate has to show, `loop.settings.Gate` as a dict.
        metrics: the difference with its interval, whose coverage is the gate's level, and the effective sample size.
        report: the judgement as a page.

    Returns:
        The judgement as JSON, for the Deployer.
    """
    from pathlib import Path

    from recbandits.loop.gate import judge
    from recbandits.loop.settings import Gate
    from recbandits.loop.steps import model_of, platform_of

    judgement = judge(dataset.path, model.path, model_of(platform_of(config), serving), Gate(**gate))
    Path(report.path).write_text(judgement.html(), encoding="utf-8")
    measured = {name: getattr(judgement, name) for name in ("difference", "low", "high", "effective_sample_size")}
    for name, value in (measured | {"passed": int(judgement.passed)}).items():
        if value is not None:
            metrics.log_metric(name, value)
    return judgement.to_json()
