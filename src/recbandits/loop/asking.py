"""How visitors reach the endpoint: over one connection that stays open."""

import json
from http.client import HTTPException

_PATIENCE = 5.0  # seconds that a visitor waits for an answer


class KeepAlive:
    """Predictions over one connection that stays open, and is opened anew where it broke.

    Args:
      find: function that gives the path of the endpoint's socket, or None while there is none.
    """

    def __init__(self, find):
        self._find, self._connection = find, None

    def predict(self, instances):
        """List of predictions; see `Endpoint.predict`.

        Raises:
          OSError: nobody answers there.
          RuntimeError: it was refused, with what was said.
        """
        body = json.dumps({"instances": instances}).encode()
        try:
            answer, text = self._send(body)
        except (OSError, HTTPException) as error:
            self.close()
            raise ConnectionError(f"the endpoint does not answer: {error!r}") from error
        if answer.status != 200:
            raise RuntimeError(f"the endpoint answered {answer.status}: {text[:200].decode(errors='replace')}")
        return json.loads(text)["predictions"]

    def close(self):
        """Hang up."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _send(self, body):
        if self._connection is None:
            path = self._find()
            if path is None:
                raise ConnectionError("there is no endpoint")
            from recbandits.platforms.local.endpoints import SocketConnection

            self._connection = SocketConnection(path, _PATIENCE)
        self._connection.request("POST", "/predict", body, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        return answer, answer.read()


def endpoint_of(platform, name):
    """What answers visitors: the local endpoint over a lasting connection, or Vertex AI's endpoint."""
    if platform.name == "local":
        from recbandits.platforms.local.endpoints import socket_of  # needs what a function in the cloud has not

        return KeepAlive(lambda: socket_of(platform.config.artifacts_dir / "endpoints" / name))
    return platform.endpoints.create(name)
