"""Pub/Sub on loopback, for the real client: what this project asks of the service.

It keeps the promises of the service and no others: a message that is not acknowledged before its deadline comes again,
so every message comes at least once, in no particular order. What was acknowledged to a publisher is in the file.

    python -m recbandits.platforms.local.pubsub --port 8085 --file messages.sqlite
"""

import argparse
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from recbandits.platforms.local.mailboxes import Store
from recbandits.platforms.local.pubsub_methods import handlers
from recbandits.platforms.messages import VARIABLE

_LARGEST = 10 * 2**20  # bytes in a request


class PubSub:
    """A server for use in a `with` block, in which clients of this process (and its children) find it.

    Args:
      port: on loopback; 0 for a free one.
      clock: function that gives seconds, by which deadlines pass.
      file: in which topics, subscriptions and messages outlive the server; None for a server that forgets them.

    Attributes:
      address: "127.0.0.1:<port>".

    Raises:
      PlatformError: another server runs with the file, or it is none of SQLite's.
    """

    def __init__(self, port=0, clock=time.monotonic, file=None):
        options = [("grpc.max_receive_message_length", 2 * _LARGEST), ("grpc.so_reuseport", 0)]
        self._store = Store(file)
        self._server = grpc.server(ThreadPoolExecutor(32), options=options)
        self._server.add_generic_rpc_handlers(list(handlers(clock, self._store)))
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"

    def __enter__(self):
        self._server.start()
        self._before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = self.address
        return self

    def __exit__(self, *_):
        if self._before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._before
        self._server.stop(None).wait()
        self._store.close()


def main():
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m recbandits.platforms.local.pubsub", description=main.__doc__)
    parser.add_argument("--port", type=int, required=True, help="on loopback")
    parser.add_argument("--file", required=True, help="of SQLite, made if missing")
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with PubSub(arguments.port, file=arguments.file):
        ended.wait()


if __name__ == "__main__":
    main()
