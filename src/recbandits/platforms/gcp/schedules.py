"""Cloud Scheduler: cron strings that publish to a topic, or call a function."""

import json

from recbandits.platforms.gcp.assets import have
from recbandits.platforms.gcp.errors import explained
from recbandits.platforms.gcp.resources import remove
from recbandits.platforms.protocol import Resource
from recbandits.platforms.schedules import Schedule

_ZONE = "Etc/UTC"


class GcpSchedules:
    """See `platforms.schedules.Schedules`; a job's id is the schedule's name after those of the configuration.

    Args:
      config: Config
      clients: `Clients`
    """

    def __init__(self, config, clients):
        self._config, self._clients = config, clients

    def create(self, name, cron, target, payload=None):
        """See `Schedules.create`.

        Raises:
          ValueError: of `Schedule`.
          PlatformError: Cloud Scheduler refused.
        """
        schedule = Schedule(name, cron, target, payload or {})
        client, resource, document = self._clients.scheduler, self._resource(name), self._job(schedule)
        made = have(
            self._config,
            resource,
            lambda: client.get_job(name=resource.name),
            lambda: client.create_job(request={"parent": self._parent, "job": document}, retry=None),
        )
        if not made:
            with explained(resource, "changed"):
                mask = {"paths": sorted(document.keys() - {"name"})}
                if _is_paused(client.update_job(request={"job": document, "update_mask": mask})):
                    client.resume_job(name=resource.name)  # refused where it is not paused
        return schedule

    def list(self):
        """See `Schedules.list`.

        Raises:
          PlatformError: Cloud Scheduler refused.
        """
        begin = f"{self._parent}/jobs/{self._config.base}-"
        with explained(self._resource(""), "listed"):
            found = [
                job for job in self._clients.scheduler.list_jobs(parent=self._parent) if job.name.startswith(begin)
            ]
        return sorted((_schedule(job, begin) for job in found), key=lambda schedule: schedule.name)

    def pause(self, name):
        """See `Schedules.pause`.

        Raises:
          PlatformError: Cloud Scheduler refused, or has no such schedule.
        """
        client, resource = self._clients.scheduler, self._resource(name)
        with explained(resource, "paused"):
            if not _is_paused(client.get_job(name=resource.name)):
                client.pause_job(name=resource.name)

    def delete(self, name):
        """See `Schedules.delete`.

        Raises:
          PlatformError: Cloud Scheduler refused.
        """
        resource = self._resource(name)
        with explained(resource, "removed"):
            remove(self._clients, resource)

    @property
    def _parent(self):
        return f"projects/{self._config.project}/locations/{self._config.region}"

    def _resource(self, name):
        return Resource("schedule", f"{self._parent}/jobs/{self._config.base}-{name}")

    def _job(self, schedule):
        """Dict in the shape of `google.cloud.scheduler_v1.Job`; a call signs in as the project's service account."""
        data = json.dumps(schedule.payload).encode()
        if schedule.target.startswith("projects/"):
            target = {"pubsub_target": {"topic_name": schedule.target, "data": data}}
        else:
            account = {"service_account_email": self._config.account("function"), "audience": schedule.target}
            headers = {"Content-Type": "application/json"}
            request = {"uri": schedule.target, "http_method": "POST", "headers": headers, "body": data}
            target = {"http_target": {**request, "oidc_token": account}}
        return {
            "name": self._resource(schedule.name).name,
            "description": f"RecBandits {self._config.base}",
            "schedule": schedule.cron,
            "time_zone": _ZONE,
            **target,
        }


def _schedule(job, begin):
    """The `Schedule` that a job of Cloud Scheduler is."""
    by_topic = bool(job.pubsub_target.topic_name)
    target = job.pubsub_target.topic_name if by_topic else job.http_target.uri
    payload = json.loads(job.pubsub_target.data if by_topic else job.http_target.body)
    return Schedule(job.name.removeprefix(begin), job.schedule, target, payload, _is_paused(job))


def _is_paused(job):
    from google.cloud.scheduler_v1 import Job

    return job.state == Job.State.PAUSED
