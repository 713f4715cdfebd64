"""The HTTP of a rehearsal: requests are read, answers written, nothing is understood."""

import json
import re
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, unquote, urlsplit

from recbandits.platforms.gcp.rehearsal.answers import Request

_MAPS = ("labels", "metadata", "parameterValues", "trafficSplit")


def handler(receive):
    """A class of request handlers.

    Args:
      receive: called with each `Request`; gives its answer: status, a document for JSON or bytes, and maybe a dict of
        headers, in which Location may be relative.
    """

    class Handler(BaseHTTPRequestHandler):
        def serve(self):
            url = urlsplit(self.path)
            kind, data = self.headers.get("Content-Type", ""), self.rfile.read(int(self.headers["Content-Length"] or 0))
            request = Request(self.command, unquote(url.path), _query(url.query), *_read(kind, data))
            status, document, *headers = receive(request)
            answer = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, f"http://{self.headers['Host']}{value}" if name == "Location" else value)
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815

        def log_message(self, *_):
            """Stay silent: the requests are kept."""

    return Handler


def _in_order(document):
    """Clients send maps in any order; sorted, the same request is always the same text."""
    if isinstance(document, list):
        return [_in_order(each) for each in document]
    if not isinstance(document, dict):
        return document
    fields = {key: _in_order(value) for key, value in document.items()}
    return {key: dict(sorted(value.items())) if key in _MAPS else value for key, value in fields.items()}


def _query(text):
    pairs = parse_qsl(text)
    return {key: ",".join(value for other, value in pairs if other == key) for key, _ in pairs}


def _read(kind, data):
    """The JSON document of a body, and its bytes; of an upload in two parts the first and the second."""
    if kind.startswith("multipart/"):
        boundary = re.search(r'boundary="?([^";]+)', kind)[1].encode()
        parts = (part.partition(b"\r\n\r\n")[2][:-2] for part in data.split(b"--" + boundary)[1:3])
        document, content = parts
        return json.loads(document), content
    try:
        return _in_order(json.loads(data or b"{}")), data
    except ValueError:
        return {}, data
