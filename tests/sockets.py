"""Ports of loopback, requests to them, and a web server on a UNIX socket, for tests."""

import json
import socket
import socketserver
from http.server import ThreadingHTTPServer
from urllib.request import ProxyHandler, Request, build_opener


def free_ports(number):
    """Return free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports


class SocketServer(ThreadingHTTPServer):
    """A web server on a UNIX socket."""

    address_family = socket.AF_UNIX

    def __init__(self, path, handler):
        super().__init__(str(path), handler)

    def server_bind(self):
        """Bind the socket, whose address has no host and no port."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0


def get_text(url, body=None):
    """Return the text that a server on this machine answers, without a proxy; a body is posted as JSON."""
    request = Request(url, body and json.dumps(body).encode(), {"Content-Type": "application/json"})
    with build_opener(ProxyHandler({})).open(request, timeout=30) as response:
        return response.read().decode()


def get_json(url, body=None):
    """Return the JSON that a server on this machine answers, as `get_text`."""
    return json.loads(get_text(url, body))
