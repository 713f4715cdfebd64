"""Start the playground: python -m playground, or write it to a file: python -m playground --export FILE."""

import argparse
import hmac
import secrets
import signal
from pathlib import Path

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.server.auth_provider import AuthProvider
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import HTTPError

from playground.catalogue import Catalogue
from playground.export import Choices, export
from playground.page import LivePage
from recbandits.data import movielens, synthetic

ADDRESS = "127.0.0.1"


class TokenAuth(AuthProvider):
    """Serve the page and its websocket only to whom the printed address was given, at exactly that address.

    The first request has the token in its query, as Jupyter's has; later ones have it in a cookie. A page of another
    site has neither, and a name that resolves to loopback is another host.

    Args:
      host: name and port.
      token: secret.
    """

    login_url = "/login"  # required, never reached: who has no token is refused

    def __init__(self, host: str, token: str):
        self._host, self._token, self._cookie = host, token, f"playground-{host.rpartition(':')[2]}"
        super().__init__()

    @property
    def get_user_async(self):
        """Return the function by which Bokeh checks each request, those for a websocket before it accepts them."""
        return self._check

    async def _check(self, handler):
        request = handler.request
        token = handler.get_query_argument("token", None) or handler.get_cookie(self._cookie, "")
        same_site = request.headers.get("Origin") in (None, f"http://{self._host}")
        if request.host != self._host or not same_site or not hmac.compare_digest(token.encode(), self._token.encode()):
            raise HTTPError(403, reason="open the address that the playground has printed")
        if not request.headers.get("Upgrade"):
            handler.set_cookie(self._cookie, token, httponly=True, samesite="Strict")
        return "user"


def serve(catalogue: Catalogue, port: int = 0) -> tuple[BaseServer, str]:
    """Return a server on loopback that has started, and the address to open; port 0 is any that is free."""
    sockets, port = bind_sockets(ADDRESS, port)
    host, token = f"{ADDRESS}:{port}", secrets.token_urlsafe(32)
    application = Application(FunctionHandler(lambda document: LivePage(document, catalogue) and None))
    tornado = BokehTornado({"/": application}, extra_websocket_origins=[host], auth_provider=TokenAuth(host, token))
    http = HTTPServer(tornado)
    http.add_sockets(sockets)
    server = BaseServer(IOLoop.current(), tornado, http)
    server.start()
    return server, f"http://{host}/?token={token}"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m playground", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1; by default one that is free")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the page with runs of the synthetic set")
    options = parser.parse_args(arguments)
    if options.export:  # of the synthetic set alone, because MovieLens must not be redistributed
        export(options.export, Catalogue(synthetic.generate()), Choices())
        return
    catalogue = Catalogue(movielens.load())
    server, url = serve(catalogue, options.port)
    print(f"PLAYGROUND: {url}\nCtrl-C ends it.", flush=True)
    # as an event of the loop: an exception may be raised in a destructor, where Python ignores it
    server.io_loop.asyncio_loop.add_signal_handler(signal.SIGINT, server.io_loop.stop)
    server.io_loop.start()
    server.stop()


if __name__ == "__main__":
    main()
