"""Send the best parameters of a study to the next job, and check that they arrived."""

import pandas as pd

from recbandits.platforms.jobs import Job
from recbandits.platforms.tuning import with_parameters
from recbandits.training.problems import as_text


def best_job(jobs, study, name, **flags):
    """The job that a study has been made for.

    Args:
      jobs: `platforms.jobs.Jobs` of any platform, on which the study has ended.
      study: Study
      name: of the new job.
      **flags: other arguments than in the study, such as `users="report"`, for users that no trial has drawn.

    Returns:
      Job with the arguments of the study, these flags and the best trial's parameters.

    Raises:
      PlatformError: no trial has succeeded.
    """
    best = jobs.best(study.job.name)
    return Job(name, with_parameters(study.job.arguments, flags | best.parameters), study.job.machine)


def received(record, parameters):
    """Compare the parameters that were sent to a job with those that the job recorded.

    Args:
      record: `platforms.jobs.Record` of a job that has succeeded.
      parameters: dict that was sent, such as those of the best trial.

    Returns:
      DataFrame indexed by parameter: sent and received (text), arrived (bool).
    """
    own = record.own["parameters"]
    rows = {name: (as_text(value), as_text(own[name]) if name in own else "") for name, value in parameters.items()}
    table = pd.DataFrame.from_dict(rows, "index", columns=["sent", "received"]).rename_axis("parameter")
    return table.assign(arrived=table["sent"] == table["received"])
