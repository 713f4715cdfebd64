"""Generator: the first interactions, by a policy that shows anything as likely as anything else."""

from kfp import dsl

from recbandits.platforms.pipelines import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def generator(
    config: dict,
    world: str,
    start: str,
    end: str,
    first: int,
    candidates: int,
    seed: int,
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Write first interactions and their rewards to the warehouse; doing so again has no further effect.

    Args:
        config: settings of the project.
        world: directory or gs:// URI of the simulated users.
        start: time of the first interaction, ISO 8601.
        end: time after the last one.
        first: number of interactions.
        candidates: movies to choose from in each.
        seed: of everything random.
        metrics: numbers of decisions, rewards and rows that are new.

    Returns:
        What the warehouse has of that time, in one word: a part of the key by which later steps are cached.
    """
    from recbandits.loop.generate import generate
    from recbandits.loop.simulated_users import SimulatedUsers
    from recbandits.loop.steps import directory_of, platform_of, time_of

    warehouse = platform_of(config).warehouse
    begin, stop = time_of(start), time_of(end)
    seconds = (stop - begin).total_seconds()
    done = generate(SimulatedUsers.load(directory_of(world)), warehouse, first, begin, seed, seconds, candidates)
    for name in ("decisions", "rewards", "written"):
        metrics.log_metric(name, done[name])
    return warehouse.snapshot(begin, stop)
