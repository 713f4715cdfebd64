"""Mean regret of agents, with 95 % intervals over seeds, on common users."""

import pandas as pd

from benchmarks.profiles import choose
from recbandits.agents import parameters as agents
from recbandits.environments.factorization import als, svd
from recbandits.environments.movielens import MovieLensEnvironment
from recbandits.evaluation.regret import summary
from recbandits.training.online import simulate

INTERACTIONS = choose(10_000, 2_000)
SEEDS = range(choose(20, 3))

LINEAR = {
    "LinUCB": agents.LinUCB(),
    "LinUCB, alpha = 10": agents.LinUCB(alpha=10.0),
    "LinTS": agents.LinTS(),
    "EXP3 mixture": agents.Exp3Mixture(),
}
NETWORKS = {
    "epsilon-greedy": agents.EpsilonGreedy(),
    "Boltzmann": agents.Boltzmann(),
    "SquareCB": agents.SquareCB(),
    "NeuralLinUCB": agents.NeuralLinUCB(),
}
REFERENCES = {"best non-personalised policy": agents.BestFixedArm(), "uniform random policy": agents.Uniform()}


def measure(data):
    """Simulate all agents on the two environments of notebook 01a."""
    ratings = data.ratings
    environments = {
        "zero-filled SVD, 20 movies, batch 8": MovieLensEnvironment(svd(ratings, 20, num_movies=20), 20, 8),
        "ALS, 100 candidates, batch 32": MovieLensEnvironment(als(ratings), 100, 32, per_arm=True),
    }
    all_agents = LINEAR | NETWORKS | REFERENCES
    table = pd.DataFrame({"agent": list(all_agents)})
    for name, environment in environments.items():
        runs = simulate(environment, all_agents, INTERACTIONS // environment.batch_size, SEEDS, points=1)
        rows = summary(runs).itertuples()
        table[name] = [f"{row.regret:.4f} ({row.regret_low:.4f} to {row.regret_high:.4f})" for row in rows]
    title = "Mean expected regret per interaction [rating points]"
    return {f"{title}, first {INTERACTIONS:,} interactions, {len(SEEDS)} seeds": table}
