"""Endpoints on this machine: the prediction server on a UNIX socket, which no web page and no other user can reach.

The directory of an endpoint is that of its `Unit`, with the socket and `storage`, which AIP_STORAGE_URI names. Others
wait for a process that changes an endpoint or starts its server: it holds the lock in `<name>.turn` beside it.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from recbandits import checks
from recbandits.config import Config
from recbandits.platforms.endpoints import Endpoint, in_context, with_version
from recbandits.platforms.functions import TOPIC_OR_NONE
from recbandits.platforms.jobs import check_name
from recbandits.platforms.local.files import in_turn, one_sentence, private, write_json
from recbandits.platforms.local.units import Unit
from recbandits.platforms.protocol import PlatformError
from recbandits.serving import predictor, versions
from recbandits.serving.handler import read_metrics
from recbandits.serving.policy import load
from recbandits.serving.sinks import SINK_VARIABLE, TOPIC_VARIABLE, temporary_folder

_ANSWER = 60  # seconds until a server must answer a request
_TOKEN = "RECBANDITS_ADMIN_TOKEN"  # for the routes that change the release
_END = 20.0  # seconds that a server gets to deliver its log
_LONGEST = 100  # bytes of a socket's path, which systems limit to 104 or 108


class SocketConnection(HTTPConnection):
    """An HTTP connection to a server on a UNIX socket."""

    def __init__(self, path: Path, timeout: float):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def socket_of(directory: Path) -> Path | None:
    """Return the path of the socket of the endpoint in a directory; None before its first start."""
    run = Unit(directory, "endpoint").run
    return Path(run["command"][-1]) if run else None


class LocalEndpoints:
    """See `platforms.endpoints.Endpoints`."""

    def __init__(self, config: Config):
        self._config = config

    def create(self, name: str | None = None, topic: str | None = None, sticky: bool = True) -> "LocalEndpoint":
        """Start a server, or find the one that runs; see `Endpoints.create`. Here a user always gets the same version.

        Decisions are logged before they are answered, to a topic of `LocalMessages`; a server that logs elsewhere is
        started anew. The sentence of a PlatformError ends with what a server that did not start has written last.
        """
        checks.require_each(TOPIC_OR_NONE, topic=topic)
        endpoint = self._endpoint(name)
        endpoint.start(topic)
        return endpoint

    def delete(self, name: str | None = None) -> None:
        """See `Endpoints.delete`; the log stays."""
        self._endpoint(name).delete()

    def _endpoint(self, name):
        name = check_name(self._config.endpoint if name is None else name)
        return LocalEndpoint(name, self._config.artifacts_dir / "endpoints" / name)


class LocalEndpoint(Endpoint):
    """See `platforms.endpoints.Endpoint`; all its files are in `directory`, and `unit` is that of the server."""

    def __init__(self, name: str, directory: Path):
        self.name, self.directory = name, directory
        self._storage = directory / "storage"
        self.unit = Unit(directory, f"endpoint {name}")

    @in_context
    def start(self, topic: str | None = None) -> None:
        """Start the server unless it runs; see `LocalEndpoints.create`."""
        private(private(self.directory) / "storage")
        previous = self._variables
        topic = topic or previous.get(TOPIC_VARIABLE) or ""
        if topic != previous.get(TOPIC_VARIABLE):
            self.unit.stop(_END)
        variables = {
            _TOKEN: previous.get(_TOKEN) or secrets.token_hex(16),
            "AIP_HEALTH_ROUTE": "/health",
            "AIP_PREDICT_ROUTE": "/predict",
            "AIP_STORAGE_URI": str(self._storage),
            "RECBANDITS_ARTIFACTS": str(self.directory.absolute().parents[1]),
            TOPIC_VARIABLE: topic,
            SINK_VARIABLE: "recbandits.platforms.local.messages:open_sink",
        }
        command = [sys.executable, "-m", "recbandits.serving.server", "--uds", str(_socket_path(self.directory))]
        self.unit.start(command, variables, restart=True)
        self.unit.wait_ready(lambda: self.health()["alive"])
        # A process that was killed may have left the server another release than the one that is written, and drafts.
        self._restore(self._read()[0])
        for draft in (*self._storage.glob(".*"), *self._storage.glob(f"{versions.POLICIES}/.*")):
            if draft.is_dir():  # a file of such a name is of the system, as .DS_Store
                shutil.rmtree(draft)

    @in_context
    def deploy(self, policy: str | Path, traffic_percentage: int = 100) -> str:
        """See `Endpoint.deploy`; where the server refuses, or is late, it is asked to serve what it did before."""
        self._find_socket()  # of an endpoint that was deleted no directory is made
        version, (present, state) = load(policy).version, self._read()
        release = with_version(present, version, traffic_percentage)
        copy = self._storage / versions.POLICIES / version
        new = not copy.exists()
        try:
            intact = load(copy).version == version
        except ValueError:  # there is none, or it is damaged
            intact = False
        if not intact:
            with checks.replacing(copy) as draft:
                checks.copy_files(Path(policy), draft)
                for path in (draft, *draft.rglob("*")):
                    path.chmod(0o700 if path.is_dir() else 0o600)
        try:
            self._write(release, state)
        except (PlatformError, OSError):
            self._restore(present)  # a server that answered too late may have taken the release, and need the copy
            if new:
                shutil.rmtree(copy)
            raise
        return version

    def raw_predict(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """See `Endpoint.raw_predict`."""
        return self._send("POST", "/predict", body, headers)

    def health(self) -> dict:
        """Dict: alive, ready (which is what Vertex AI means by healthy), and the reason why not."""
        try:
            if not self.unit.running:
                raise PlatformError("the server is not running")
            (alive, _), (ready, answer) = self._send("GET", "/live"), self._send("GET", "/health")
        except PlatformError as error:
            return {"alive": False, "ready": False, "reason": str(error)}
        reason = "" if ready == 200 else json.loads(answer)["detail"]
        return {"alive": alive == 200, "ready": ready == 200, "reason": reason}

    def metrics(self) -> dict:
        """Return what the server has counted since its start, as `serving.handler.read_metrics` does."""
        return read_metrics(self._send("GET", "/metrics")[1].decode())

    def logs(self) -> str:
        """Return all that the server has printed."""
        return self.unit.log()

    def batch_predict(self, policy: str | Path, source: str | Path, destination: str | Path) -> predictor.Answered:
        """See `Endpoint.batch_predict`; in this process, without the server."""
        return predictor.batch_predict(policy, source, destination)

    @in_context
    def delete(self) -> None:
        """See `Endpoint.delete`; the log stays."""
        self.unit.stop(_END)
        if path := socket_of(self.directory):
            path.unlink(missing_ok=True)
        with one_sentence(f"directory {self.directory}", "removed"):
            if self.directory.exists():
                shutil.rmtree(self.directory)

    @contextlib.contextmanager
    def _context(self):
        """No two threads or processes are in it at once."""
        with one_sentence(self.unit.label, "changed"), in_turn(self.directory, self.unit.label):
            yield

    def _read(self):
        try:
            return versions.read(self._storage), None
        except ValueError as error:
            raise PlatformError(f"endpoint {self.name}: {error}") from error

    def _write(self, release, _):
        """Have the server take a release that is written, and give it the name by which its next start finds it."""
        with checks.replacing(self._storage / versions.FILE) as draft:
            write_json(draft, vars(release))
            self._ask("PUT", "/release", vars(release))

    def _restore(self, release):
        """Have the server serve the release that is written."""
        self._ask("PUT" if release else "DELETE", "/release", release and vars(release))

    def _remove(self, version, release, state):
        if release:
            self._write(release, state)
        else:
            self._ask("DELETE", "/release")
            (self._storage / versions.FILE).unlink()
        shutil.rmtree(self._storage / versions.POLICIES / version)

    def _ask(self, method, path, body=None):
        status, answer = self._send(method, path, None if body is None else json.dumps(body))
        if status != 200:
            raise PlatformError(f"endpoint {self.name} answered {status}: {self._reason(answer)}")
        return json.loads(answer)

    def _reason(self, answer):
        return json.loads(answer)["detail"]

    def _find_socket(self):
        if address := socket_of(self.directory):
            return address
        raise PlatformError(f"endpoint {self.name} does not exist, or not any more")

    @property
    def _variables(self):
        return self.unit.run.get("variables", {})

    def _send(self, method, path, body=None, headers=None):
        address = self._find_socket()
        if headers is None:
            token = self._variables.get(_TOKEN)
            headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        with contextlib.closing(SocketConnection(address, _ANSWER)) as connection:
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, HTTPException) as error:
                raise PlatformError(f"endpoint {self.name} cannot be reached: {error}") from error


def _socket_path(directory):
    """Return a path in the directory, or, where that is too long for a socket, in a private folder of this user."""
    path = directory / "http.sock"
    if len(os.fsencode(path)) <= _LONGEST:
        return path
    return temporary_folder() / f"{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}.sock"
