"""The process that owns the warehouse's file, and answers everybody else over HTTP on loopback.

    python -m recbandits.platforms.local.warehouse_server --port 8080 --file warehouse.duckdb

An answer comes after the commit. `recbandits.platforms.local.warehouse_client` is what asks.
"""

import argparse
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from recbandits.platforms.local.warehouse import DuckWarehouse
from recbandits.platforms.local.warehouse_client import packed, read_parameter, unpacked
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.writer import Writer

_PAUSE = 0.1  # seconds that a record waits for others: a transaction of one costs as much as one of ten


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
            except (PlatformError, ValueError, KeyError) as error:
                status, answer = 503, str(error).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.wfile.flush()
            if warehouse.broken:  # what was answered is on the disk; whoever asks next has the process started anew
                os._exit(1)

        def _answer(self, content):
            _, action, name = self.path.split("/")
            if action == "write":
                return str(writer.write({name: unpacked(content)})).encode()
            request = json.loads(content)
            parameters = {key: read_parameter(value) for key, value in request["parameters"].items()}
            if action == "change":
                warehouse.change(request["statements"], parameters)
                return b""
            return packed(warehouse.query(request["text"], parameters))

        def log_message(self, *_):
            """Stay silent: there are hundreds of requests a second."""

    return Handler


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
    with warehouse, Writer(warehouse.insert, _PAUSE) as writer:
        ThreadingHTTPServer.request_queue_size = 128
        server = ThreadingHTTPServer(("127.0.0.1", given.port), handler(warehouse, writer))
        server.daemon_threads = True
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever(poll_interval=0.05)
        server.server_close()


if __name__ == "__main__":
    main()
    os._exit(0)  # everything is written; what is left are threads that wait for clients
