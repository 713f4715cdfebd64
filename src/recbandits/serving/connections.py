"""Connections of the prediction server: uvicorn's protocol, which would wait for its clients for ever, with limits.

A client has `CLIENT_SECONDS` to send the head of a request, as long again for the body, and as long to take the answer.
Over `MOST_CONNECTIONS` the one whose client has been waited for longest is closed, so that whoever sends a request at
once, such as a health check, is always answered.
"""

from asyncio import Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CLIENT_SECONDS = 10.0
MOST_CONNECTIONS = 128
LARGEST_HEAD = 65_536  # bytes of a request line and its headers


class BoundedProtocol(HttpToolsProtocol):
    """One connection to a client, by uvicorn's names."""

    def connection_made(self, transport: Transport) -> None:
        """Begin to wait for the client, in place of another one where there are too many."""
        super().connection_made(transport)
        self._waiting_since: float | None = self.loop.time()  # None while it is the server's turn
        self._head: int | None = 0  # bytes of the head that is being read
        self._timer = self.loop.call_later(CLIENT_SECONDS, self._check)
        if len(self.connections) > MOST_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the waiting."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, but no head that is too large."""
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > LARGEST_HEAD:
                self.send_400_response(f"the head of a request must have at most {LARGEST_HEAD:,} bytes")

    def on_message_begin(self) -> None:
        """Wait for the head."""
        super().on_message_begin()
        self._waiting_since, self._head = self.loop.time(), 0

    def on_headers_complete(self) -> None:
        """Wait for the body."""
        super().on_headers_complete()
        self._waiting_since, self._head = self.loop.time(), None

    def on_message_complete(self) -> None:
        """Answer; unless that was done before the body was read."""
        super().on_message_complete()
        if not self.cycle.response_complete:
            self._waiting_since = None

    def on_response_complete(self) -> None:
        """Wait until the answer is taken and the next request comes."""
        super().on_response_complete()
        if self.cycle.response_complete:  # no request was sent behind this one
            self._waiting_since = self.loop.time()

    def _check(self) -> None:
        """Close the connection if its client has used up its time, else look again when it will have."""
        left = CLIENT_SECONDS
        if self._waiting_since is not None:
            left += self._waiting_since - self.loop.time()
        if left <= 0:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(left, self._check)

    def _make_room(self) -> None:
        waiting = [each for each in self.connections if each is not self and each._waiting_since is not None]
        longest = min(waiting, key=lambda each: each._waiting_since, default=self)
        self.connections.discard(longest)
        longest.transport.abort()
