"""The process that owns the warehouse's file, and answers everybody else over HTTP on loopback.

    python -m recbandits.platforms.local.warehouse_server --port 8080 --file warehouse.duckdb

What is written while a transaction is under way waits for the next one, which takes all of it at once: one write of
many rows costs as much as one of a few. An answer comes after the commit. `recbandits.platforms.local.warehouse` knows
the client.
"""

import argparse
import json
import os
import queue
import signal
import sys
import threading
from concurrent.futures import Future
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa

from recbandits.platforms import PlatformError
from recbandits.platforms.local.warehouse import DuckWarehouse, packed, unpacked

_TOGETHER = 1_000  # writes in one transaction, at most


class Writer:
    """One thread that writes for all others; for use in a `with` block, whose end writes what is left.

    Args:
      insert: `DuckWarehouse.insert`.
    """

    def __init__(self, insert):
        self._insert, self._waiting = insert, queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._waiting.put(None)
        self._thread.join()

    def write(self, name, batch):
        """Write a pyarrow.Table into the table of that name; how many rows were new, once they are on the disk."""
        answer = Future()
        self._waiting.put((name, batch, answer))
        return answer.result()

    def _run(self):
        while True:
            jobs = [self._waiting.get()]
            while jobs[-1] is not None and len(jobs) < _TOGETHER and not self._waiting.empty():
                jobs.append(self._waiting.get())
            last = jobs[-1] is None
            self._serve(jobs[:-1] if last else jobs)
            if last:
                return

    def _serve(self, jobs):
        if not jobs:
            return
        try:
            names = dict.fromkeys(name for name, _, _ in jobs)
            new = set(self._insert({n: pa.concat_tables(batch for name, batch, _ in jobs if name == n) for n in names}))
        except Exception as error:
            if len(jobs) == 1:
                jobs[0][-1].set_exception(error)
            else:  # whose fault it was shows when each is alone
                for job in jobs:
                    self._serve([job])
            return
        for _, batch, answer in jobs:
            digests = new & set(batch["digest"].to_pylist())
            new -= digests  # the first of two that write the same has written it
            answer.set_result(len(digests))


def handler(warehouse, writer):
    """A class of request handlers for a `DuckWarehouse` and its `Writer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                status, answer = 200, self._answer(content)
            except (PlatformError, ValueError, KeyError, pa.ArrowException) as error:
                status, answer = 503, str(error).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.wfile.flush()
            if warehouse.broken:  # whoever asks next starts it anew
                threading.Thread(target=self.server.shutdown).start()

        def _answer(self, content):
            _, action, *name = self.path.split("/")
            if action == "write":
                return str(writer.write(*name, unpacked(content))).encode()
            request = json.loads(content)
            parameters = {key: read_parameter(value) for key, value in request["parameters"].items()}
            if action == "change":
                warehouse.change(request["statements"], parameters)
                return b""
            return packed(warehouse.query(request["text"], parameters))

        def log_message(self, *_):
            """Stay silent: there are hundreds of requests a second."""

    return Handler


def read_parameter(value):
    """A parameter of a statement as it was before it became JSON: times are {"time": text}."""
    return datetime.fromisoformat(value["time"]) if isinstance(value, dict) else value


def main(arguments=None):
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m recbandits.platforms.local.warehouse_server")
    parser.add_argument("--port", type=int, required=True, help="of loopback")
    parser.add_argument("--file", required=True, help="of DuckDB")
    given = parser.parse_args(arguments)
    try:
        warehouse = DuckWarehouse(given.file)
    except PlatformError as error:
        sys.exit(str(error))
    with warehouse, Writer(warehouse.insert) as writer:
        ThreadingHTTPServer.request_queue_size = 128
        server = ThreadingHTTPServer(("127.0.0.1", given.port), handler(warehouse, writer))
        server.daemon_threads = True
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever(poll_interval=0.05)
        server.server_close()


if __name__ == "__main__":
    main()
    os._exit(0)  # everything is written; what is left are threads that wait for clients
