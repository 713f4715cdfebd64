"""Contract of the jobs of every platform."""

import pytest

from recbandits.platforms.jobs import Choice, Float, Integer
from recbandits.platforms.protocol import PlatformError

PARAMETERS = {
    "alpha": Float(0.01, 10.0, log=True),
    "layers": Integer(1, 3),
    "agent": Choice(("linucb", "lints")),
    "width": Choice((16, 32, 64)),
}


class JobsContract:
    """A test class supplies the fixture `jobs` and the method below."""

    def study(self, jobs, values, maximise=True):
        """Make a study of `PARAMETERS` whose trials ended with these values, None for a failure; gives its name."""
        raise NotImplementedError

    @pytest.mark.parametrize(
        ("values", "maximise", "number"),
        [((1.0, 3.0, 2.0), True, 1), ((1.0, 3.0, 0.5), False, 2), ((None, -2.0, -2.0), True, 1)],
        ids=["most", "least", "the first of equals, and failures do not count"],
    )
    def test_the_best_trial_is_the_arg_max(self, jobs, values, maximise, number):
        name = self.study(jobs, values, maximise)
        assert jobs.best(name) == jobs.trials(name)[number]
        assert jobs.best(name).value == values[number]

    def test_trials_have_the_types_of_the_study(self, jobs):
        (trial,) = jobs.trials(self.study(jobs, [1.0]))
        assert {key: type(value) for key, value in trial.parameters.items()} == {
            "alpha": float,
            "layers": int,
            "agent": str,
            "width": int,
        }
        assert trial.parameters["width"] in (16, 32, 64)

    def test_without_a_trial_that_succeeded_there_is_no_best_one(self, jobs):
        name = self.study(jobs, [None, None])
        assert {trial.state for trial in jobs.trials(name)} == {"failed"}
        with pytest.raises(PlatformError, match=f"study {name} must have a trial that succeeded to have a best one"):
            jobs.best(name)

    def test_an_unknown_name_is_refused(self, jobs):
        with pytest.raises(PlatformError, match="there is no job nothing"):
            jobs.record("nothing")
        with pytest.raises(PlatformError, match="there is no study nothing"):
            jobs.trials("nothing")
        with pytest.raises(PlatformError, match="there is no job or study nothing"):
            jobs.stop("nothing")

    def test_a_name_with_capitals_is_refused(self, jobs):
        for call in (jobs.record, jobs.stop, jobs.trials, jobs.best):
            with pytest.raises(ValueError, match="name must be at most 63 lower-case letters, digits and single"):
                call("Alpha")
