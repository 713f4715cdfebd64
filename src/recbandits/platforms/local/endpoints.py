"""Endpoints on this machine: Vertex AI's model server on loopback, with everything it serves in one directory.

The directory of an endpoint has `storage` (what AIP_STORAGE_URI names: `release.json` and `policies/<version>`),
`server.json` (process and port), `log.txt`, and `lock`, which the server holds as long as it lives: so any process
finds out whether it runs, and no number of a process that is long gone is mistaken for it. Whoever changes an endpoint
holds `<name>.turn` beside the directory meanwhile, so that others wait for the change, or for the server to start.
"""

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException

from recbandits.platforms import PlatformError
from recbandits.platforms.jobs import NAME
from recbandits.platforms.local.processes import held, is_held, log_of, read_json
from recbandits.platforms.local.supervisor import write_json
from recbandits.serving import batch, versions
from recbandits.serving.policy import load
from recbandits.serving.release import Release

_POLL = 0.05  # seconds between two looks
_START = 90  # seconds until a server must answer
_END = 20  # seconds that it gets to deliver its log
_ANSWER = 60  # seconds until it must answer a request
_JSON = {"content-type": "application/json"}
_TRIES = 3  # ports, should another process take one first
_LAST_LINES = 15
_children = []  # servers that this process started: nobody else may ask how they ended


def _in_turn(method):
    """A method of an endpoint that no two threads or processes are in at once."""

    @functools.wraps(method)
    def waiting(self, *arguments, **options):
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        with self.directory.with_name(f"{self.name}.turn").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            return method(self, *arguments, **options)

    return waiting


class LocalEndpoints:
    """See `platforms.endpoints.Endpoints`."""

    def __init__(self, config):
        self._config = config

    def create(self, name=None, topic=None):
        """Start a server, or find the one that runs.

        Args:
          name: of the endpoint; None is the name in the configuration.
          topic: "projects/<project>/topics/<topic>", where decisions are logged: by $PUBSUB_EMULATOR_HOST if that is
            set. A server that runs and logs elsewhere is started anew. None for the log that the endpoint had, if any:
            one that was killed goes on with it, whoever starts it again.

        Returns:
          `LocalEndpoint`, alive; ready if a policy was deployed there before.

        Raises:
          ValueError: a name that Vertex AI would refuse.
          PlatformError: the server did not start; the sentence ends with what it wrote last.
        """
        name = self._config.endpoint if name is None else name
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise ValueError(f"name must be at most 63 lower-case letters, digits and single hyphens, got {name!r}")
        endpoint = LocalEndpoint(name, self._config.artifacts_dir / "endpoints" / name)
        endpoint.start(topic)
        return endpoint


class LocalEndpoint:
    """See `platforms.endpoints.Endpoint`.

    Attributes:
      name: of the endpoint.
      directory: `pathlib.Path` of all that it has.
    """

    def __init__(self, name, directory):
        self.name, self.directory = name, directory
        self._storage, self._server = directory / "storage", directory / "server.json"

    @_in_turn
    def start(self, topic=None):
        """Start the server unless it runs; see `LocalEndpoints.create`."""
        self._storage.mkdir(parents=True, exist_ok=True)
        log = _log(topic) if topic else (read_json(self._server) or {}).get("log")
        if topic and is_held(self.directory) and read_json(self._server)["log"] != log:
            self._stop()
        if self._wait():
            return
        for _ in range(_TRIES):
            (self.directory / "log.txt").unlink(missing_ok=True)
            self._spawn(log)
            if self._wait():
                return
            if "address already in use" not in self.logs():
                break
        last = "\n".join(self.logs().splitlines()[-_LAST_LINES:])
        raise PlatformError(f"endpoint {self.name} did not start, the last it wrote was:\n{last}")

    @property
    def traffic_split(self):
        """Dict from version to percentage; empty before the first policy."""
        release = self._release()
        return dict(release.shares) if release else {}

    @_in_turn
    def deploy(self, policy, traffic_percentage=100):
        """See `Endpoint.deploy`.

        Raises:
          ValueError: no exported policy, or a percentage that is none.
          PlatformError: the server refused; what it served before goes on.
        """
        version, release = load(policy).version, self._release()
        release = (
            release.with_version(version, traffic_percentage) if release else Release({version: traffic_percentage})
        )
        place = self._storage / versions.POLICIES / version
        new = not place.exists()
        if new:
            draft = place.with_name(f"{version}.{os.getpid()}")
            shutil.copytree(policy, draft)
            draft.rename(place)
        try:
            self._serve(release)
        except PlatformError:
            if new:
                shutil.rmtree(place)
            raise
        return version

    @_in_turn
    def split(self, traffic_split):
        """See `Endpoint.split`; a deployed version that is not named gets nothing."""
        self._serve(self._deployed().then(dict.fromkeys(self.traffic_split, 0) | traffic_split))

    @_in_turn
    def rollback(self):
        """See `Endpoint.rollback`."""
        self._serve(self._deployed().rolled_back())

    @_in_turn
    def undeploy(self, version):
        """See `Endpoint.undeploy`."""
        release = self._deployed()
        if set(release.shares) == {version}:
            self._ask("DELETE", "/release")
            (self._storage / versions.FILE).unlink()
        else:
            self._serve(release.without(version))
        shutil.rmtree(self._storage / versions.POLICIES / version)

    def predict(self, instances, parameters=None):
        """See `Endpoint.predict`.

        Raises:
          PlatformError: they were refused, in the server's words.
        """
        body = {"instances": instances} | ({} if parameters is None else {"parameters": parameters})
        return self._ask("POST", "/predict", body)["predictions"]

    def raw_predict(self, body, headers):
        """See `Endpoint.raw_predict`."""
        return self._send("POST", "/predict", body, headers)

    def health(self):
        """Dict: alive, ready, and the reason why not."""
        if not is_held(self.directory):
            return {"alive": False, "ready": False, "reason": "the server is not running"}
        try:
            (alive, _), (ready, answer) = self._send("GET", "/health"), self._send("GET", "/ready")
        except PlatformError as error:
            return {"alive": False, "ready": False, "reason": str(error)}
        reason = "" if ready == 200 else json.loads(answer)["detail"]
        return {"alive": alive == 200, "ready": ready == 200, "reason": reason}

    def metrics(self):
        """What the server has counted since its start, dict."""
        return self._ask("GET", "/metrics")

    def logs(self):
        """See `Endpoint.logs`."""
        return log_of(self.directory)

    def batch_predict(self, policy, source, destination):
        """See `Endpoint.batch_predict`; in this process, without the server. Returns `serving.batch.Answered`."""
        return batch.batch_predict(policy, source, destination)

    @_in_turn
    def delete(self):
        """See `Endpoint.delete`; the server delivers its log before it ends."""
        self._stop()
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def _stop(self):
        for number, patience in ((signal.SIGTERM, _END), (signal.SIGKILL, _END)):
            if is_held(self.directory):  # so the process lives, and its number belongs to nobody else
                os.kill(read_json(self._server)["process"], number)
            deadline = time.monotonic() + patience
            while is_held(self.directory) and time.monotonic() < deadline:
                time.sleep(_POLL)
        _forget_ended()

    def _spawn(self, log):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        variables = {
            "AIP_HTTP_PORT": str(port),
            "AIP_HEALTH_ROUTE": "/health",
            "AIP_PREDICT_ROUTE": "/predict",
            "AIP_STORAGE_URI": str(self._storage),
            "PYTHONUNBUFFERED": "1",
            "RECBANDITS_EVENT_TOPIC": "",
        }
        if log:
            names = ("RECBANDITS_EVENT_TOPIC", "PUBSUB_EMULATOR_HOST")
            variables |= {name: value for name, value in zip(names, log, strict=True) if value}
        with held(self.directory, f"endpoint {self.name}") as lock, (self.directory / "log.txt").open("ab") as text:
            process = subprocess.Popen(
                [sys.executable, "-m", "recbandits.serving.server", "--host", "127.0.0.1"],
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=text,
                stderr=text,
                pass_fds=[lock],
                start_new_session=True,
            )
            write_json(self._server, {"process": process.pid, "port": port, "log": log})
        _children.append(process)

    def _wait(self):
        """Whether there is a server that answers, before it ends or time is up."""
        deadline = time.monotonic() + _START
        while is_held(self.directory) and time.monotonic() < deadline:
            if self.health()["alive"]:
                return True
            time.sleep(_POLL)
        _forget_ended()
        return False

    def _release(self):
        return versions.read(self._storage) if (self._storage / versions.FILE).exists() else None

    def _deployed(self):
        release = self._release()
        if release is None:
            raise PlatformError(f"endpoint {self.name} has no policy, deploy one first")
        return release

    def _serve(self, release):
        """Have the server take a release, then write it down for its next start."""
        self._ask("PUT", "/release", vars(release))
        write_json(self._storage / versions.FILE, vars(release))

    def _ask(self, method, path, body=None):
        status, answer = self._send(method, path, None if body is None else json.dumps(body))
        if status != 200:
            raise PlatformError(f"endpoint {self.name} answered {status}: {json.loads(answer)['detail']}")
        return json.loads(answer)

    def _send(self, method, path, body=None, headers=_JSON):
        server = read_json(self._server)
        if server is None:
            raise PlatformError(f"endpoint {self.name} does not exist, or not any more")
        with contextlib.closing(HTTPConnection("127.0.0.1", server["port"], timeout=_ANSWER)) as connection:
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, HTTPException) as error:
                raise PlatformError(f"endpoint {self.name} cannot be reached: {error}") from error


def _log(topic):
    """Where a server logs that is started now: topic, and who takes it."""
    return [topic, os.environ.get("PUBSUB_EMULATOR_HOST")]


def _forget_ended():
    _children[:] = [process for process in _children if process.poll() is None]
