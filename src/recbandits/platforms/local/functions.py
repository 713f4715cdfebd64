"""Functions on this machine: a process each, which calls the code that Cloud Functions would run.

`main.py` is called with the CloudEvent that Eventarc would send. A message is acknowledged when the function returns,
and comes again when it raises. `python -m recbandits.platforms.local.functions DIRECTORY SUBSCRIPTION` is that process;
the directory has `function.json`. Others wait for a process that deploys, starts, stops or deletes a function: it holds
the lock in `<name>.turn` beside that directory.
"""

import base64
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from recbandits.config import SETTINGS, Config
from recbandits.platforms.functions import EVENT, Function
from recbandits.platforms.jobs import check_name
from recbandits.platforms.local.files import in_turn, one_sentence, private, read_json, write_json
from recbandits.platforms.local.messages import LocalMessages, Message
from recbandits.platforms.local.units import VARIABLE, Unit
from recbandits.platforms.protocol import PlatformError

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent

_BATCH = 100  # messages that are taken and acknowledged at once
_POLL = 0.01  # seconds between two looks
_PAUSE = 1.0  # seconds until messages that cannot be read are looked at again


class LocalFunctions:
    """See `platforms.functions.Functions`; on this machine every function has a topic of some `LocalMessages`."""

    def __init__(self, config: Config, messages: LocalMessages):
        self._config, self._messages = config, messages

    def deploy(self, function: Function) -> None:
        """See `Functions.deploy`; messages that come meanwhile wait, and its process finds this configuration."""
        if function.topic is None:
            raise PlatformError(
                f"function {function.name}: topic must be a topic's name on this machine, which serves nothing by "
                f"HTTP, got None; call {function.target} with a request object"
            )
        unit = self.unit(function.name)
        with in_turn(unit.directory, unit.label):
            unit.stop()
            with one_sentence(unit.label, "deployed"):
                write_json(private(unit.directory) / "function.json", vars(function) | {"source": str(function.source)})
            self._start(function.name)

    def ensure(self, name: str) -> None:
        """Start a function that was deployed unless it runs; PlatformError if there is none, or it does not start."""
        unit = self.unit(name)
        with in_turn(unit.directory, unit.label):
            self._start(name)

    def _start(self, name):
        function, unit = self._deployed(name), self.unit(name)
        dead = self._messages.topic(f"{self._short(function.topic)}-dead")
        self._messages.subscription(f"{self._short(function.topic)}-dead", dead)
        subscription = self._messages.subscription(self._reader(function), function.topic, dead)
        settings = {f"RECBANDITS_{setting.upper()}": str(getattr(self._config, setting)) for setting in SETTINGS}
        settings["RECBANDITS_ARTIFACTS"] = str(self._config.artifacts_dir)
        command = [sys.executable, "-m", __name__, str(unit.directory), subscription]
        unit.start(command, settings | function.environment, restart=True)
        unit.wait_ready(lambda: _is_loaded(unit))

    def unit(self, name: str) -> Unit:
        """`Unit` of a function."""
        return Unit(self._config.artifacts_dir / "functions" / check_name(name), f"function {name}")

    def stop(self, name: str) -> None:
        """End the process of a function, which is there to be started by `ensure`; messages wait meanwhile."""
        unit = self.unit(name)
        with in_turn(unit.directory, unit.label):
            unit.stop()

    def delete(self, name: str) -> None:
        """See `Functions.delete`."""
        unit = self.unit(name)
        directory = unit.directory
        with one_sentence(f"directory {directory}", "removed"):
            if not directory.exists():
                return
            with in_turn(directory, unit.label):
                unit.stop()
                if (directory / "function.json").exists():
                    self._messages.delete(self._reader(self._deployed(name)))
                if directory.exists():  # not, if another process has deleted it meanwhile
                    shutil.rmtree(directory)

    def logs(self, name: str) -> str:
        """See `Functions.logs`."""
        return self.unit(name).log()

    def health(self, name: str) -> dict:
        """See `Functions.health`; HTTP calls none."""
        self._deployed(name)
        alive = self.unit(name).running
        reason = "" if alive else f"function {name} is not running"
        return {"alive": alive, "ready": alive and _is_loaded(self.unit(name)), "reason": reason, "address": ""}

    def _reader(self, function):
        return f"{self._short(function.topic)}-{function.name}"

    def _short(self, topic):
        """A topic without the configuration's names."""
        return topic.rpartition("/")[2].removeprefix(f"{self._config.base}-")

    def _deployed(self, name):
        function = read_json(self.unit(name).directory / "function.json")
        if function is None:
            raise PlatformError(f"function {name} does not exist, or not any more")
        return Function(**function)


def event(message: Message, topic: str, subscription: str) -> "CloudEvent":
    """Return the CloudEvent by which Eventarc delivers a message, given the full names of topic and subscription."""
    from cloudevents.http import CloudEvent

    when = datetime.fromtimestamp(message.time, UTC).isoformat().replace("+00:00", "Z")
    content = {
        "messageId": message.message_id,
        "publishTime": when,
        "data": base64.b64encode(message.data).decode(),
        "attributes": message.attributes,
    }
    attributes = {"id": message.message_id, "source": f"//pubsub.googleapis.com/{topic}", "type": EVENT, "time": when}
    data = {"message": content, "subscription": subscription, "deliveryAttempt": message.attempts}
    return CloudEvent(attributes | {"datacontenttype": "application/json"}, data)


def call(target: Callable, messages: LocalMessages, topic: str, subscription: str, stop: threading.Event) -> None:
    """Call a function with the CloudEvent of message after message, as the only reader of a subscription, until `stop`.

    The first messages after a start are taken one at a time: one that kills the process is the only one whose attempts
    count, and is a dead letter after ten.
    """
    calls = 0
    while not stop.is_set():
        try:
            batch, done, failed = messages.take(subscription, 1 if calls < _BATCH else _BATCH), [], []
            for message in batch:
                try:
                    target(event(message, topic, subscription))
                    done.append(message.number)
                except (Exception, SystemExit):  # of any kind: the message is delivered again
                    traceback.print_exc()
                    failed.append(message)
            if batch:
                messages.settle(subscription, done, failed)
            calls += len(batch)
            stop.wait(0 if batch else _POLL)
        except PlatformError:  # the disk is full, say: what was taken comes again
            traceback.print_exc()
            stop.wait(_PAUSE)


def main(directory: Path, subscription: str) -> None:
    """Call the function of a directory until SIGTERM; its `main.py` may import from its own directory."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    function = Function(**read_json(directory / "function.json"))
    sys.path.insert(0, str(function.source))
    target = getattr(import_module("main"), function.target)
    write_json(directory / "loaded.json", os.environ[VARIABLE])
    call(target, LocalMessages(Config.load()), function.topic or "", subscription, stop)


def _is_loaded(unit):
    return read_json(unit.directory / "loaded.json") == unit.run.get("name", "")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
