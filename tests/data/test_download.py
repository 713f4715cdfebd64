"""The download against a real HTTP server on this machine: whatever breaks, no half file is left."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recbandits.data import download
from recbandits.data.download import Archive, DownloadError

CONTENT = bytes(range(256)) * 1_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/whole gives all, /truncated half of what it announces, /slow half of it and then nothing."""

    def do_GET(self):
        if self.path not in ("/whole", "/truncated", "/slow"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[: len(CONTENT) // 2])
        self.wfile.flush()
        if self.path == "/slow":
            self.server.waiting.set()
            self.server.stopped.wait(20)

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.waiting, server.stopped = True, threading.Event(), threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.stopped.set()
        server.shutdown()


def address(server, path):
    return f"http://127.0.0.1:{server.server_port}/{path}"


def test_an_archive_of_the_right_digest_is_taken(server):
    assert download.fetch(Archive((address(server, "whole"),), DIGEST)) == CONTENT


def test_the_next_address_serves_when_the_first_one_fails(server):
    addresses = ("https://127.0.0.1:9/refused", address(server, "missing"), address(server, "whole"))
    assert download.fetch(Archive(addresses, DIGEST)) == CONTENT


@pytest.mark.parametrize(
    ("path", "digest", "reason"),
    [
        ("truncated", DIGEST, "the connection ended after 128,000 of 256,000 bytes"),
        ("whole", "0" * 64, "SHA-256 must be 000"),
        ("missing", DIGEST, "Not Found"),
    ],
)
def test_a_broken_download_says_why(server, path, digest, reason):
    with pytest.raises(DownloadError, match=reason):
        download.fetch(Archive((address(server, path),), digest))


def test_a_refused_connection_says_so():
    with pytest.raises(DownloadError, match="refused"):
        download.fetch(Archive(("http://127.0.0.1:9/x",), DIGEST))


def test_a_silent_server_is_given_up_after_the_timeout(server):
    start = time.monotonic()
    with pytest.raises(DownloadError, match="timed out"):
        download.fetch(Archive((address(server, "slow"),), DIGEST), timeout=0.2)
    assert time.monotonic() - start < 5


def test_a_process_killed_in_the_middle_leaves_nothing(server, tmp_path):
    script = (
        "from recbandits.data import movielens; from recbandits.data.download import Archive;"
        f"movielens.load(cache={str(tmp_path)!r}, _archive=Archive(({address(server, 'slow')!r},), {DIGEST!r}))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RECBANDITS_MOVIELENS"}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    assert server.waiting.wait(60), "the process never asked for the archive"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_complete_or_absent(tmp_path):
    """A limit on file sizes stands for a full disk: the kernel refuses the write after 100,000 of 256,000 bytes."""
    download.keep(CONTENT, tmp_path / "new" / "archive.zip")
    assert (tmp_path / "new" / "archive.zip").read_bytes() == CONTENT
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            download.keep(CONTENT, tmp_path / "full" / "archive.zip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list((tmp_path / "full").iterdir()) == []


def test_keeping_replaces_an_older_file_at_once(tmp_path):
    file = tmp_path / "archive.zip"
    file.write_bytes(b"old")
    download.keep(CONTENT, file)
    assert file.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [file]
