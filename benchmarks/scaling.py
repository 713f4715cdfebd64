"""Growth of the cost: simulation with actions, numbers of the context and batch; evaluation with the log; answers.

Simulation is set beside a bound that is measured in the same run: the fewest floating-point operations that an
interaction needs, at the rate of a large float32 matrix product.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.bound import as_share, count_linear_operations, measure_gemm
from benchmarks.off_policy import as_log, draw_arrays
from benchmarks.profiles import choose, is_published
from benchmarks.simulation import own_loop
from recbandits.agents.factory import make_agent
from recbandits.data import Features
from recbandits.environments.synthetic import StationaryLinearEnvironment
from recbandits.evaluation import off_policy
from recbandits.plots.style import COLOURS, REFERENCE, figure
from recbandits.serving.policy import Exploration, export, load
from recbandits.training.offline import Specs

DATA = "simulated users and logs"
ACTIONS, SIZE, BATCH = 100, 20, 128  # of which one at a time varies
SIMULATIONS = {
    "actions": choose((20, 50, 100, 200, 500, 1000, 2000), (20, 200)),
    "numbers in the context": choose((5, 10, 20, 40, 80), (5, 40)),
    "batch": choose((1, 8, 32, 128, 512), (8, 128)),
}
ROUNDS, SECONDS = choose(5, 2), choose(1.0, 0.3)  # about so long takes each round of a simulation
DECISIONS = choose((10_000, 100_000, 1_000_000), (10_000, 100_000))
CATALOGUES, NUMBERS, RETRIEVED = choose((100, 1_000, 10_000, 100_000), (100, 10_000)), 20, 200
CALLS = choose(200, 50)
PICTURE = Path("docs/scaling.png")


def measure(data):
    """Measure all curves; the picture of a published run, which `data` tells, goes to docs/."""
    simulation, evaluation, answers = measure_simulation(), measure_evaluation(), measure_answers()
    if is_published(data):
        draw(simulation, evaluation, answers).savefig(PICTURE)
    speeds = [
        {
            "varied": f"{row.varied}: {row.value:,}",
            "interactions per second": f"{row.speed:,.0f}",
            "microseconds each": f"{1e6 / row.speed:,.2f}",
            "share of the bound": as_share(row.share),
        }
        for row in simulation.itertuples()
    ]
    base = f"{ACTIONS} actions, {SIZE} numbers in the context, batch {BATCH}"
    return {
        f"Simulation with LinUCB: {base}, one of them varied": pd.DataFrame(speeds),
        "Off-policy evaluation: IPS, SNIPS and DR with intervals, 20 candidates": evaluation.map(as_number),
        f"One answer, milliseconds: all candidates scored, or {RETRIEVED} that were retrieved": answers.map(as_number),
    }


def as_number(value):
    """Give a count or a measured number as text."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def measure_simulation(seconds=SECONDS):
    """Measure `simulate` with one size varied at a time.

    Returns:
      DataFrame with columns varied, value, speed (interactions per second) and share (of the bound).
    """
    rows, rate = [], measure_gemm()
    for varied, values in SIMULATIONS.items():
        for value in values:
            sizes = {"actions": ACTIONS, "numbers in the context": SIZE, "batch": BATCH} | {varied: value}
            actions, size, batch = sizes.values()
            environment = StationaryLinearEnvironment(actions, size - 1, batch)
            steps = int(max(20, seconds / (20e-6 + batch * actions * size**2 * 1e-10)))
            run = own_loop(environment, steps)
            speed = statistics.median(run() for _ in range(ROUNDS))
            share = speed * count_linear_operations(actions, size) / rate
            rows.append({"varied": varied, "value": value, "speed": speed, "share": share})
    return pd.DataFrame(rows)


def measure_evaluation():
    """Measure three estimates with intervals, on a `Log` and arrays [decisions, 20].

    Returns:
      DataFrame with columns decisions, seconds and gigabytes (of the arrays).
    """
    rows = []
    for decisions in DECISIONS:
        arrays = draw_arrays(decisions)
        log, size = as_log(arrays), sum(array.nbytes for array in arrays.values())
        start = time.perf_counter()
        off_policy.evaluate(log, arrays["probabilities"], arrays["q"], names=("IPS", "SNIPS", "DR"))
        rows.append({"decisions": decisions, "seconds": time.perf_counter() - start, "gigabytes": size / 1e9})
    return pd.DataFrame(rows)


def measure_answers():
    """Measure `recommend` on all candidates of a catalogue, and on those with the largest inner products.

    Returns:
      DataFrame with columns candidates, and in milliseconds: all, retrieval, and "then the policy".
    """
    rows, rng = [], np.random.default_rng(0)
    for count in CATALOGUES:
        items = pd.DataFrame(rng.normal(size=(count, NUMBERS)), range(count)).add_prefix("x")
        context = pd.DataFrame(rng.normal(size=(100, NUMBERS))).add_prefix("u")
        features = Features.fit(items, context, [(f"u{number}", f"x{number}") for number in range(NUMBERS)])
        agent = make_agent("linucb", Specs(features.spec(10)))
        with tempfile.TemporaryDirectory() as folder:
            policy = load(export(agent.policy, folder, features, exploration=Exploration("epsilon_greedy", 0.1)))
        table, request = items.to_numpy(np.float32), context.iloc[0].to_dict()
        user = context.iloc[0].to_numpy(np.float32)

        def retrieve(table=table, user=user):
            number = min(RETRIEVED, len(table))
            return np.argpartition(table @ user, -number)[-number:]

        chosen = [str(row) for row in retrieve()]
        rows.append(
            {
                "candidates": count,
                "all": milliseconds(lambda policy=policy, request=request: policy.recommend(request, k=10)),
                "retrieval": milliseconds(retrieve),
                "then the policy": milliseconds(
                    lambda policy=policy, request=request, chosen=chosen: policy.recommend(request, chosen, k=10)
                ),
            }
        )
    return pd.DataFrame(rows)


def milliseconds(call, calls=CALLS, limit=5.0):
    """Return the median time of a call, of at most so many calls or seconds; the first one is not counted."""
    call()
    times, end = [], time.perf_counter() + limit
    while len(times) < calls and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def draw(simulation, evaluation, answers):
    """Draw the curves, each on two logarithmic axes."""
    with figure(11.0, 6.4, 2, 3) as (fig, axes):
        for ax, (varied, part) in zip(axes[0], simulation.groupby("varied", sort=False), strict=True):
            time_each = 1e6 / part["speed"]
            ax.plot(part["value"], time_each, "o-", label="measured")
            ax.plot(part["value"], time_each * part["share"], ":", color=REFERENCE, label="bound")
            ax.set(xlabel=varied, ylabel="time per interaction [µs]")
        axes[1, 0].plot(evaluation["decisions"], evaluation["seconds"], "o-")
        axes[1, 0].set(xlabel="logged decisions", ylabel="off-policy evaluation [s]")
        axes[1, 1].plot(answers["candidates"], answers["all"], "^-", color=COLOURS[2], label="all candidates")
        both = answers["retrieval"] + answers["then the policy"]
        axes[1, 1].plot(answers["candidates"], both, "s--", color=COLOURS[1], label=f"{RETRIEVED} retrieved")
        axes[1, 1].set(xlabel="items in the catalogue", ylabel="time of an answer [ms]")
        axes[1, 2].axis("off")
        lines = [*axes[0, 0].lines, *axes[1, 1].lines]
        axes[1, 2].legend(lines, [line.get_label() for line in lines], loc="center")
        for ax in axes.flat[:5]:
            ax.set(xscale="log", yscale="log")
        sizes = sorted(simulation.loc[simulation["varied"] == "numbers in the context", "value"])
        axes[0, 1].set_xticks(sizes, map(str, sizes))
        axes[0, 1].minorticks_off()
    return fig
