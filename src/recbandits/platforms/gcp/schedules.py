"""Cloud Scheduler: cron strings that publish to a topic, or call a function."""

import builtins
import json
from contextlib import suppress
from functools import cached_property

from recbandits.config import Config
from recbandits.platforms.gcp.cloud import explained, have, location, mark
from recbandits.platforms.jobs import check_name
from recbandits.platforms.schedules import Schedule


class GcpSchedules:
    """See `platforms.schedules.Schedules`; a job of Cloud Scheduler has no labels: its description says whose it is."""

    def __init__(self, config: Config):
        self._config = config
        self._parent = location(config)
        self._begin, self._description = f"{self._parent}/jobs/{config.base}-", mark(config)

    @cached_property
    def _client(self):
        from google.cloud.scheduler_v1 import CloudSchedulerClient

        return CloudSchedulerClient()

    def create(self, name: str, cron: str, target: str, payload: dict | None = None) -> Schedule:
        """See `Schedules.create`."""
        schedule = Schedule(name, cron, target, payload or {})
        client, job = self._client, self._job(schedule)
        with explained(f"schedule {name}"):
            present = have(
                lambda: client.get_job(name=job["name"]),
                lambda: client.create_job(request={"parent": self._parent, "job": job}),
            )
            if self._schedule(present) != schedule:
                mask = {"paths": sorted(job.keys() - {"name"})}
                client.update_job(request={"job": job, "update_mask": mask})
                if _is_paused(present):  # to resume a job that is not paused is refused
                    client.resume_job(name=job["name"])
        return schedule

    def list(self) -> builtins.list[Schedule]:
        """See `Schedules.list`."""
        with explained("schedules"):
            jobs = list(self._client.list_jobs(parent=self._parent))
        schedules = [self._schedule(job) for job in jobs if job.description == self._description]
        return sorted(schedules, key=lambda schedule: schedule.name)

    def pause(self, name: str) -> None:
        """See `Schedules.pause`."""
        with explained(f"schedule {name}"):
            if not _is_paused(self._client.get_job(name=self._begin + check_name(name))):
                self._client.pause_job(name=self._begin + name)

    def delete(self, name: str) -> None:
        """See `Schedules.delete`."""
        from google.api_core.exceptions import NotFound

        with explained(f"schedule {name}"), suppress(NotFound):
            self._client.delete_job(name=self._begin + check_name(name))

    def _job(self, schedule):
        """Dict in the shape of `google.cloud.scheduler_v1.Job`; it calls functions as their own account."""
        job = {"name": self._begin + schedule.name, "description": self._description}
        job |= {"schedule": schedule.cron, "time_zone": "Etc/UTC"}
        data = json.dumps(schedule.payload).encode()
        if schedule.target.startswith("projects/"):
            return job | {"pubsub_target": {"topic_name": schedule.target, "data": data}}
        token = {"service_account_email": self._config.account("function"), "audience": schedule.target}
        request = {"uri": schedule.target, "http_method": "POST", "body": data, "oidc_token": token}
        return job | {"http_target": request | {"headers": {"Content-Type": "application/json"}}}

    def _schedule(self, job):
        by_topic = bool(job.pubsub_target.topic_name)
        target = job.pubsub_target.topic_name if by_topic else job.http_target.uri
        payload = json.loads(job.pubsub_target.data if by_topic else job.http_target.body)
        return Schedule(job.name.removeprefix(self._begin), job.schedule, target, payload, _is_paused(job))


def _is_paused(job):
    return job.state == type(job).State.PAUSED
