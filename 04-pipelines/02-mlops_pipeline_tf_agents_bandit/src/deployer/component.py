"""Deployer: a candidate that the gate lets pass becomes a canary on the one endpoint; else it says why not."""

from kfp import dsl

from recbandits.platforms.pipelines import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def deployer(
    config: dict,
    model: dsl.Input[dsl.Model],
    serving: str,
    judgement: str,
    canary: int,
    topic: str,
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Keep the model by its version, deploy it or refuse to, and write the verdict to the warehouse.

    Args:
        config: settings of the project.
        model: the candidate.
        serving: version that served when it was trained; empty where nothing did.
        judgement: of the Evaluator, as JSON; empty for the first model.
        canary: percentage of the users who get it at first.
        topic: full name of the topic where the endpoint logs decisions; empty for where it does.
        metrics: whether it was deployed, 1 or 0.

    Returns:
        The verdict as JSON.
    """
    from recbandits.loop.canary import deploy
    from recbandits.loop.gate import Judgement
    from recbandits.loop.steps import models_of, platform_of

    platform = platform_of(config)
    models_of(platform.config).keep(model.path)
    judged = Judgement.from_json(judgement) if judgement else None
    endpoint = platform.endpoints.create(topic=topic or None)
    verdict = deploy(endpoint, model.path, judged, serving or None, canary)
    platform.warehouse.write([verdict])
    metrics.log_metric("deployed", int(verdict.kind == "deployed"))
    return verdict.to_json()
