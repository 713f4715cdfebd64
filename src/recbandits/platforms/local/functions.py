"""Functions on this machine: functions-framework on loopback, and beside it what pushes messages to it.

The directory of a function has `function.json`, and the directories of two servers: `server` and, where a topic calls
the function, `pusher`.
"""

import os
import re
import shutil
import sys
from typing import NamedTuple

from recbandits.config import SETTINGS
from recbandits.platforms.functions import Function
from recbandits.platforms.jobs import NAME
from recbandits.platforms.local.files import read_json, write_json
from recbandits.platforms.local.services import Service, answers
from recbandits.platforms.messages import VARIABLE
from recbandits.platforms.protocol import PlatformError

_THREADS = 32  # events in a function at once


class Parts(NamedTuple):
    """The `Service`s of one function."""

    server: Service
    pusher: Service


class LocalFunctions:
    """See `platforms.functions.Functions`.

    Args:
      config: Config
      messages: `LocalMessages` of the topics.
    """

    def __init__(self, config, messages):
        self._config, self._messages = config, messages

    def deploy(self, function):
        """See `Functions.deploy`; messages that come meanwhile wait.

        Args:
          function: `Function`; its processes find the configuration of this platform.

        Raises:
          PlatformError: it did not start; the sentence ends with what it wrote last.
        """
        directory = self._directory(function.name)
        directory.mkdir(parents=True, exist_ok=True)
        for service in self.parts(function.name):
            service.stop()
        write_json(directory / "function.json", vars(function) | {"source": str(function.source)})
        self.ensure(function.name)

    def ensure(self, name):
        """Start what does not run of a function that was deployed.

        Raises:
          PlatformError: there is no such function, or it does not start.
        """
        function, (server, pusher) = self._deployed(name), self.parts(name)
        kind = "cloudevent" if function.topic else "http"
        options = ["--target", function.target, "--signature-type", kind, "--source", str(function.source / "main.py")]
        command = [sys.executable, "-m", "functions_framework", *options, "--host", "127.0.0.1", "--port"]
        settings = {f"RECBANDITS_{setting.upper()}": str(getattr(self._config, setting)) for setting in SETTINGS}
        settings["RECBANDITS_ARTIFACTS"] = str(self._config.artifacts_dir)
        server.start(lambda port: [*command, str(port)], settings | {"THREADS": str(_THREADS)} | function.environment)
        if function.topic:
            subscription = self._subscribe(function)
            module = [sys.executable, "-m", "recbandits.platforms.local.pusher", subscription, function.topic]
            places = {"FUNCTION": f"127.0.0.1:{server.port}", VARIABLE: os.environ[VARIABLE]}
            if pusher.running and pusher.variables != places:
                pusher.stop()
            pusher.start(lambda _: module, places, ready=lambda _: True)

    def parts(self, name):
        """`Parts` of a function."""
        directory = self._directory(name)
        return Parts(
            Service(directory / "server", f"function {name}"),
            Service(directory / "pusher", f"the pusher of function {name}"),
        )

    def stop(self, name):
        """End the processes of a function, which is there to be started by `ensure`; messages wait meanwhile."""
        server, pusher = self.parts(name)
        pusher.stop()
        server.stop()

    def delete(self, name):
        """See `Functions.delete`."""
        directory = self._directory(name)
        if not directory.exists():
            return
        self.stop(name)
        if (directory / "function.json").exists() and (topic := self._deployed(name).topic):
            self._messages.delete(self._reader(name, topic))
        shutil.rmtree(directory)

    def logs(self, name):
        """See `Functions.logs`; what the pusher wrote comes last."""
        return "".join(part.logs() for part in self.parts(name))

    def health(self, name):
        """See `Functions.health`."""
        function, (server, pusher) = self._deployed(name), self.parts(name)
        address = f"http://127.0.0.1:{server.port}"
        missing = [part.what for part in (server, pusher)[: 2 if function.topic else 1] if not part.running]
        reason = f"{' and '.join(missing)} not running" if missing else ""
        return {
            "alive": server.running,
            "ready": not missing and answers(server.port),
            "reason": reason,
            "address": address,
        }

    def _subscribe(self, function):
        """The function's own subscription, made if missing; what is tried too often goes to dead letters, kept."""
        topic = self._short(function.topic)
        dead = self._messages.topic(f"{topic}-dead")
        self._messages.subscription(f"{topic}-dead", dead)
        return self._messages.subscription(self._reader(function.name, function.topic), function.topic, dead)

    def _reader(self, name, topic):
        return f"{self._short(topic)}-{name}"

    def _short(self, topic):
        """A topic without the configuration's names."""
        return topic.rpartition("/")[2].removeprefix(f"{self._config.base}-")

    def _deployed(self, name):
        function = read_json(self._directory(name) / "function.json")
        if function is None:
            raise PlatformError(f"function {name} does not exist, or not any more")
        return Function(**function)

    def _directory(self, name):
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise ValueError(f"name must be at most 63 lower-case letters, digits and single hyphens, got {name!r}")
        return self._config.artifacts_dir / "functions" / name
