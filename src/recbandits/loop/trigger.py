"""When to train again: enough new decisions, or a time of a cron string; never two trainings at once.

`python -m recbandits.loop.trigger --settings FILE` is the process that looks every second on this machine; on Google
Cloud a function does, at each message of Cloud Scheduler. It also has the guardrail look at what is served.
"""

import argparse
import hashlib
import json
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from recbandits.config import Config
from recbandits.loop.canary import experiment, guard
from recbandits.loop.steps import re_training_parameters, serving_model, settings_from
from recbandits.platforms import choose
from recbandits.platforms.protocol import PlatformError

PIPELINE = "re-training"
OVERLAP = 60.0  # seconds before the end of what serves has learnt: decisions that were delivered late are read then
_TRIES = 3  # of one run that fails


class Plan(NamedTuple):
    """A re-training that is due.

    Attributes:
      name: of the run; another one for other data, another window or another model to go on from.
      start: datetime in UTC, from which on decisions are read.
      end: before which.
      snapshot: what the warehouse has of that time, in one word.
      serving: version that serves, to go on from.
      new: decisions since it was last decided about a candidate.
    """

    name: str
    start: datetime
    end: datetime
    snapshot: str
    serving: str
    new: int


def due(warehouse, serving, rule, now, least_new, overlap=OVERLAP, since=None, shares=None):
    """Whether it is time to train again.

    It is when so many decisions are new since the last verdict about a candidate, with a report or with the default,
    and no canary waits for a verdict. Decisions that people may still answer are left for the next time.

    Args:
      warehouse: `Warehouse`
      serving: `loop.models.Model` that serves.
      rule: `settings.Join`
      now: aware datetime.
      least_new: decisions that are enough.
      overlap: seconds, see `span`.
      since: aware datetime; decisions before it do not count as new. None for none.
      shares: traffic of the endpoint, dict from version to percentage, which tells whether a canary waits.

    Returns:
      `Plan`, or None.
    """
    verdicts = warehouse.verdicts()
    decided = verdicts[verdicts["kind"].isin(["deployed", "held", "refused"])]
    under = experiment(shares or {}, verdicts)
    if under is not None and not under.promoted:
        return None
    start, end = span(warehouse, serving, rule, now, overlap)
    news = [serving.until, *([] if since is None else [since])]
    news += [] if decided.empty else [decided["time"].max().to_pydatetime() - _seconds(rule.window)]
    counts = warehouse.counts(max(news), end, **vars(rule)) if max(news) < end else None
    new = 0 if counts is None else counts.joined + (0 if rule.default is None else counts.defaulted)
    if new < least_new:
        return None
    snapshot = warehouse.snapshot(start, end)
    about = hashlib.blake2b(f"{start} {end} {snapshot}".encode(), digest_size=8).hexdigest()
    return Plan(f"{PIPELINE}-{about}-{serving.version[:8]}", start, end, snapshot, serving.version, new)


def span(warehouse, serving, rule, now, overlap=OVERLAP):
    """The window of time of a re-training: (start, end), datetimes in UTC.

    It ends a window before now, or before the newest reward or decision that has been logged, whichever is older:
    where rewards wait on their way, decisions wait for them instead of counting as unanswered; where decisions wait,
    the model's time does not pass them by. It starts a while before the end of what the model has learnt from, to find
    what was delivered late; nothing is learnt twice. What is delivered later still is never learnt.

    Args:
      warehouse: `Warehouse`
      serving: `loop.models.Model`
      rule: `settings.Join`
      now: aware datetime.
      overlap: seconds.
    """
    state, start = warehouse.state(), serving.until - _seconds(overlap)
    newest = [state[name]["newest"] or start for name in ("interactions", "rewards")]
    end = min(now, *newest) - _seconds(rule.window)
    return start, max(start, end.astimezone(UTC))


def plan_now(platform, rule):
    """The window and the model of a re-training that was not planned before it began, as those of a schedule are.

    Args:
      platform: `Platform`
      rule: `settings.Join`

    Returns:
      (start, end, version that serves).

    Raises:
      PlatformError: nothing serves yet.
    """
    serving = serving_model(platform)
    if serving is None:
        raise PlatformError("nothing serves yet that a re-training could go on from: run the start-up pipeline first")
    return (*span(platform.warehouse, serving, rule, datetime.now(UTC)), serving.version)


class Trigger:
    """Starts re-trainings of one platform, and has the guardrail look.

    Args:
      platform: `Platform`
      template: file with the compiled pipeline.
      settings: `Settings`; so many `decisions` are enough.
      features: directory or gs:// URI with the `Features` of the policies.
      topic: full name of the topic where the endpoint is to log; empty for where it does.
    """

    def __init__(self, platform, template, settings, features, topic=""):
        self._platform, self._template, self._settings = platform, template, settings
        self._features, self._topic = features, topic
        self._plan, self._parameters, self._tries = None, None, 0

    def look(self, now=None, least_new=None):
        """Start the re-training pipeline if it is due and none is running; one that failed is tried again.

        What fails three times is given up, until as much again is new.

        Args:
          now: aware datetime; None for the time of day.
          least_new: decisions that are enough; None for those of the settings.

        Returns:
          `Run` that was started, or None.

        Raises:
          PlatformError: what is asked does not answer; the next look decides.
          ValueError: the model that serves is not there.
        """
        pipelines, settings = self._platform.pipelines, self._settings
        if pipelines.running(PIPELINE):
            return None
        failed = self._plan is not None and pipelines.status(self._plan.name).state == "failed"
        if failed and self._tries < _TRIES:
            self._tries += 1
            return pipelines.run(self._template, self._plan.name, self._parameters)
        if (serving := serving_model(self._platform)) is None:
            return None
        now = datetime.now(UTC) if now is None else now
        least_new = settings.decisions if least_new is None else least_new
        known = {"since": self._plan.end if failed else None, "shares": self._platform.endpoints.create().traffic_split}
        if (plan := due(self._platform.warehouse, serving, settings.join, now, least_new, **known)) is None:
            return None
        parameters = re_training_parameters(self._platform.config, settings, self._features, plan, self._topic)
        run = pipelines.run(self._template, plan.name, parameters)
        self._plan, self._parameters, self._tries = plan, parameters, 1  # not before: of what never began, no status
        return run

    def guard(self, now=None):
        """Have the guardrail look; gives its `Verdict`, or None. See `loop.canary.guard`."""
        now = datetime.now(UTC) if now is None else now
        endpoint, warehouse = self._platform.endpoints.create(), self._platform.warehouse
        return guard(endpoint, warehouse, now, self._settings.join, self._settings.guardrail)


def _seconds(number):
    return timedelta(seconds=number)


def watch(trigger, stop, every=1.0, cron=None, tell=print):
    """Look again and again until told to stop; what goes wrong is told, and looked at again.

    Args:
      trigger: `Trigger`
      stop: `threading.Event`
      every: seconds between two looks.
      cron: times at which to train with whatever is new, as `platforms.schedules` says; None to train as soon as enough
        is new.
      tell: function of a sentence.
    """
    from apscheduler.schedulers.background import BackgroundScheduler

    scheduler = BackgroundScheduler(
        timezone="UTC", job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
    )
    for call, times in timetable(trigger, every, cron, tell):
        scheduler.add_job(call, times)
    scheduler.start()
    stop.wait()
    scheduler.shutdown()


def timetable(trigger, every=1.0, cron=None, tell=print):
    """What `watch` does, and when: a list of (function of nothing, trigger of APScheduler).

    Args:
      trigger: `Trigger`
      every: as for `watch`; the guardrail looks that often whatever the cron string says.
      cron: as for `watch`.
      tell: as for `watch`.

    Raises:
      ValueError: it is not a cron string.
    """
    from apscheduler.triggers.interval import IntervalTrigger

    from recbandits.platforms.schedules import trigger_of

    def telling(call, what, **options):
        try:
            if (found := call(**options)) is not None:
                tell(f"{what}: {found}")
        except (PlatformError, ValueError, OSError) as error:
            tell(f"{what} did not work, it is tried again: {error}")

    often = IntervalTrigger(seconds=every)
    look = partial(telling, trigger.look, PIPELINE, **({"least_new": 1} if cron else {}))
    return [(look, trigger_of(cron) if cron else often), (partial(telling, trigger.guard, "guardrail"), often)]


def main(arguments=None):
    """Start re-trainings when they are due, and take bad versions back, until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m recbandits.loop.trigger", description=main.__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with the `Settings` as a dict")
    parser.add_argument("--template", required=True, help="the compiled re-training pipeline")
    parser.add_argument("--features", required=True, help="directory or gs:// URI with the features of the policies")
    parser.add_argument("--topic", default="", help="full name of the topic where the endpoint logs")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument("--cron", default=None, help="times of training, such as '0 3 * * *', instead of a number")
    asked = parser.parse_args(arguments)
    settings = settings_from(json.loads(asked.settings.read_text(encoding="utf-8")))
    trigger = Trigger(choose(Config.load()), asked.template, settings, asked.features, asked.topic)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch(trigger, stop, asked.every, asked.cron, lambda line: print(line, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
