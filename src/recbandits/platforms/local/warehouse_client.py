"""The client of the process that owns the warehouse's file."""

import json
import sys
import threading
from datetime import datetime
from http.client import HTTPConnection, HTTPException

import pyarrow as pa

from recbandits.platforms.local.services import Service
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.warehouse import Warehouse

_ANSWER = 60  # seconds until the process must answer
_TRIES = 3  # of a request, should the process be killed meanwhile


class LocalWarehouse(Warehouse):
    """A client of the process that owns the file, which is started when it is needed; see `Warehouse`.

    Args:
      config: Config

    Attributes:
      service: `Service` of the process.
    """

    def __init__(self, config):
        self.service = Service(config.artifacts_dir / "warehouse", "warehouse")
        self._of_thread = threading.local()

    def start(self):
        """Start the process unless it runs."""
        file, module = self.service.directory / "warehouse.duckdb", "recbandits.platforms.local.warehouse_server"
        self.service.start(
            lambda port: [sys.executable, "-m", module, "--port", str(port), "--file", str(file.absolute())]
        )

    def stop(self):
        """Have the process write what it was given, and end."""
        self.service.stop()

    def create(self):
        """See `Warehouse.create`: the process does so when it starts."""
        self.start()

    def query(self, text, parameters=None):
        """See `Warehouse.query`."""
        return unpacked(self._ask("/query/", _request(parameters or {}, text=text)))

    def _merge(self, batches):
        return sum(int(self._ask(f"/write/{name}", packed(batch))) for name, batch in batches.items())

    def _change(self, statements, parameters):
        self._ask("/change/", _request(parameters, statements=statements))

    def _ask(self, path, body):
        """The answer to a request, which may be repeated: whatever is asked has the same effect twice as once."""
        for attempt in range(_TRIES):
            try:
                if not hasattr(self._of_thread, "connection"):
                    self._connect()
                status, answer = self._send(path, body)
                break
            except (OSError, HTTPException) as error:
                self._of_thread.__dict__.clear()
                if attempt == _TRIES - 1:
                    raise PlatformError(f"warehouse does not answer: {error or type(error).__name__}") from error
        if status != 200:
            raise PlatformError(answer.decode())
        return answer

    def _connect(self):
        self.start()
        self._of_thread.connection = HTTPConnection("127.0.0.1", self.service.port, timeout=_ANSWER)

    def _send(self, path, body):
        self._of_thread.connection.request("POST", path, body)
        answer = self._of_thread.connection.getresponse()
        return answer.status, answer.read()


def packed(table):
    """Bytes of a pyarrow.Table, as its own stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def unpacked(content):
    """The pyarrow.Table in such bytes."""
    return pa.ipc.open_stream(content).read_all()


def _request(parameters, **fields):
    """JSON of a request, in which times are {"time": text}."""
    plain = {
        name: {"time": value.isoformat()} if isinstance(value, datetime) else value
        for name, value in parameters.items()
    }
    return json.dumps(fields | {"parameters": plain}).encode()


def read_parameter(value):
    """A parameter of a statement as it was before it became JSON: times are {"time": text}."""
    return datetime.fromisoformat(value["time"]) if isinstance(value, dict) else value
