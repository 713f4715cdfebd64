"""Train in this process and draw the result, before any job."""

from recbandits.agents import parameters
from recbandits.plots import curves
from recbandits.training import task
from recbandits.training.experiments import make_environment
from recbandits.training.online import simulate

REFERENCES = {
    "uniform random policy": parameters.Uniform(),
    "best non-personalised policy": parameters.BestFixedArm(),
    "oracle": parameters.Oracle(),
}


def train(arguments, data, agents, points=20):
    """Train agents, and three references, on the problem of a job in this process.

    Args:
      arguments: of the job's command line, which say what users, what movies and for how long.
      data: MovieLens
      agents: mapping from labels to parameters.
      points: measurements, evenly spaced.

    Returns:
      DataFrame of `training.online.simulate`; all met the same users.
    """
    problem = task.parse(list(arguments)).problem
    environment = make_environment(problem, data)
    return simulate(environment, REFERENCES | agents, problem.steps, problem.seeds, points)


def picture(runs, title):
    """Draw the expected reward over time, beside the references.

    Args:
      runs: DataFrame of `train`.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    return curves(runs, "reward", references=list(REFERENCES), title=title)
