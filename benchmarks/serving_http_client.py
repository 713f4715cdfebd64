"""Clients of a prediction server: python -m benchmarks.serving_http_client ADDRESS CLIENTS SECONDS < bodies.json.

ADDRESS is a port of this machine, or the path of a UNIX socket. The clients share one thread and plain
sockets: the CPU time of a client is taken from the machine of the server.
"""

import itertools
import json
import selectors
import socket
import sys
import time


class Client:
    """One keep-alive connection, on which one request follows the other."""

    def __init__(self, address, requests):
        if address.isdigit():
            self.connection = socket.create_connection(("127.0.0.1", int(address)))
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.connection = socket.socket(socket.AF_UNIX)
            self.connection.connect(address)
        self._requests = requests

    def ask(self):
        """Send the next request."""
        self._answer = b""
        self._start = time.perf_counter()
        self.connection.sendall(next(self._requests))

    def receive(self):
        """Read from the connection; return the seconds that the answer took when it is complete, else None."""
        self._answer += self.connection.recv(1 << 20)
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or sys.maxsize)
        if len(body) < length:
            return None
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(self._answer.decode())
        return time.perf_counter() - self._start


def main(address, clients, seconds):
    """Print as JSON the seconds of each request, and those until the last one was answered.

    Those that are waiting when the time is over are answered, too: with a slow server they are many.
    """
    requests = []
    for body in json.load(sys.stdin):
        content = json.dumps(body).encode()
        head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
        requests.append(head.encode() + b"\r\n\r\n" + content)
    selector, latencies, start = selectors.DefaultSelector(), [], time.perf_counter()
    for _ in range(clients):
        client = Client(address, itertools.cycle(requests))
        selector.register(client.connection, selectors.EVENT_READ, client)
        client.ask()
    while selector.get_map():
        for key, _ in selector.select():
            if (latency := key.data.receive()) is None:
                continue
            latencies.append(latency)
            if (duration := time.perf_counter() - start) < seconds:
                key.data.ask()
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
    print(json.dumps([latencies, duration]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
