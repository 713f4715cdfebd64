"""Sources of MovieLens: their order, a download from a real HTTP server, and no silent replacement of a damaged one."""

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recbandits.data import formats, movielens, synthetic
from recbandits.data.download import Archive, DownloadError, fetch

REFUSED = "http://127.0.0.1:9/ml-100k.zip"
CONTENT = bytes(range(256)) * 1_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/whole sends everything, /truncated half of what it announces, /slow half of it and then nothing."""

    def do_GET(self):
        content = self.server.content
        if self.path not in ("/whole", "/truncated", "/slow"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.path == "/whole" else content[: len(content) // 2])
        self.wfile.flush()
        if self.path == "/slow":
            self.server.waiting.set()
            self.server.stopped.wait(20)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.waiting, server.stopped = True, threading.Event(), threading.Event()
        server.content = CONTENT
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.stopped.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.delenv("RECBANDITS_MOVIELENS", raising=False)
    monkeypatch.setenv("RECBANDITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("set") / "ml-100k"
    formats.write(synthetic.generate(seed=1), directory)
    return directory


@pytest.fixture(scope="module")
def archive(directory):
    file = directory.parent / "ml-100k.zip"
    with zipfile.ZipFile(file, "w") as target:
        for member in directory.iterdir():
            target.write(member, f"ml-100k/{member.name}")
    return file.read_bytes()


def archive_of(content, *urls):
    return Archive(urls or (REFUSED,), hashlib.sha256(content).hexdigest(), "ml-100k")


def address(server, path):
    return f"http://127.0.0.1:{server.server_port}/{path}"


def store(content, folder):
    folder.mkdir()
    (folder / "ml-100k.zip").write_bytes(content)
    return folder / "ml-100k.zip"


def test_the_next_address_is_tried_when_the_first_ones_fail(server):
    assert fetch(Archive((REFUSED, address(server, "missing"), address(server, "whole")), DIGEST)) == CONTENT


@pytest.mark.parametrize(
    ("path", "digest", "reason"),
    [
        ("truncated", DIGEST, "the connection ended after 128,000 of 256,000 bytes"),
        ("whole", "0" * 64, "SHA-256 of the 256,000 bytes must be 000"),
        ("missing", DIGEST, "Not Found"),
    ],
)
def test_a_failed_download_names_the_reason(server, path, digest, reason):
    with pytest.raises(DownloadError, match=reason):
        fetch(Archive((address(server, path),), digest))
    with pytest.raises(DownloadError, match="refused"):
        fetch(Archive((REFUSED,), digest))


def test_the_timeout_ends_a_download_from_a_silent_server(server):
    start = time.monotonic()
    with pytest.raises(DownloadError, match="timed out"):
        fetch(Archive((address(server, "slow"),), DIGEST), timeout=0.2)
    assert time.monotonic() - start < 5


def test_the_deadline_ends_a_download_that_goes_on(server):
    with pytest.raises(DownloadError, match="bytes arrived before the deadline"):
        fetch(Archive((address(server, "whole"),), DIGEST), deadline=0.0)


def test_a_process_killed_during_the_download_leaves_no_file(server, tmp_path):
    script = (
        "from recbandits.data.download import Archive; from recbandits.data.movielens import load;"
        f"load(cache={str(tmp_path)!r}, _archive=Archive(({address(server, 'slow')!r},), {DIGEST!r}, 'ml-100k'))"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    assert server.waiting.wait(60), "the process has not requested the archive"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_used_and_stored(server, archive, tmp_path):
    server.content = archive
    data = movielens.load(_archive=archive_of(archive, address(server, "whole")))
    assert data.source == "foreign data in the MovieLens CSV format (download)"
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["ml-100k.zip"]
    assert (tmp_path / "cache" / "ml-100k.zip").read_bytes() == archive


def test_a_download_is_used_where_it_cannot_be_stored(server, archive, tmp_path, capsys):
    """A limit on file sizes stands for a full disk: the kernel refuses the write after 100,000 bytes."""
    server.content = archive
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        data = movielens.load(_archive=archive_of(archive, address(server, "whole")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert len(data.ratings) == 100_000
    assert f"the next run downloads it again: {os.strerror(errno.EFBIG)}" in capsys.readouterr().out
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_failed_download_is_replaced_by_the_synthetic_set_with_a_notice(tmp_path, capsys):
    data = movielens.load(_archive=Archive((REFUSED,), "0" * 64, "ml-100k"))
    assert data.source.startswith("synthetic")
    assert f"NO MOVIELENS: the download failed ({REFUSED}: " in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()


def test_offline_returns_the_synthetic_set_with_a_notice(capsys):
    data = movielens.load(offline=True)
    assert data.source == "synthetic, shaped like MovieLens 100K"
    assert not data.is_real
    notice, line = capsys.readouterr().out.splitlines()
    assert notice.startswith("NO MOVIELENS: offline=True. A synthetic set stands in for it")
    assert line == "DATA: synthetic, shaped like MovieLens 100K: 943 users, 1,682 movies, 100,000 ratings"


def test_a_directory_as_an_argument_is_used_before_the_variable(directory, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RECBANDITS_MOVIELENS", str(tmp_path / "missing"))
    data = movielens.load(directory)
    assert data.source == "foreign data in the MovieLens CSV format (directory)"
    assert capsys.readouterr().out == f"DATA: {data.source}: 943 users, 1,682 movies, 100,000 ratings\n"


def test_the_variable_is_used_before_the_cache(directory, monkeypatch, tmp_path):
    monkeypatch.setenv("RECBANDITS_MOVIELENS", str(directory))
    store(b"damaged", tmp_path / "cache")
    assert movielens.load().source.endswith("(directory)")


def test_the_cache_is_used_before_the_web(archive, tmp_path):
    store(archive, tmp_path / "other")
    data = movielens.load(cache=tmp_path / "other", _archive=archive_of(archive))
    assert data.source == "foreign data in the MovieLens CSV format (cache)"
    assert len(data.ratings) == 100_000


def test_an_archive_that_is_named_is_used_before_the_variable(server, tmp_path, directory, monkeypatch):
    """A set in the 1M format stands for the official one; its source has the title of the archive."""
    file = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("ml-1m/users.dat", "1::F::1::10::48067\n")
        target.writestr("ml-1m/movies.dat", "1::Rain (1999)::Drama\n")
        target.writestr("ml-1m/ratings.dat", "1::1::5::978300760\n")
    server.content = file.read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    archive = Archive((address(server, "whole"),), digest, "ml-1m")
    monkeypatch.setitem(movielens.ARCHIVES, "ml-1m", archive)
    monkeypatch.setenv("RECBANDITS_MOVIELENS", str(directory))
    assert movielens.load(name="ml-1m").source == "MovieLens 1M (download)"
    assert movielens.load(name="ml-1m").source == "MovieLens 1M (cache)"
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["ml-1m.zip"]


def test_archives_have_their_published_digests():
    """As `sha256sum` of the files that TensorFlow Datasets verifies."""
    digests = {name: archive.sha256[:8] for name, archive in movielens.ARCHIVES.items()}
    assert digests == {"ml-100k": "50d2a982", "ml-1m": "a6898adb", "ml-latest-small": "696d65a3"}
    for name, archive in movielens.ARCHIVES.items():
        assert len(archive.sha256) == 64
        assert [url.partition("://")[2] for url in archive.urls] == [
            f"files.grouplens.org/datasets/movielens/{name}.zip"
        ] * 2


def test_a_set_that_cannot_be_downloaded_and_a_name_beside_a_directory_are_refused(directory):
    with pytest.raises(ValueError, match="name must be one of ml-100k, ml-1m, ml-latest-small, got 'ml-20m'"):
        movielens.load(name="ml-20m")
    with pytest.raises(ValueError, match="name must be None where a directory is given, got 'ml-1m'"):
        movielens.load(directory, name="ml-1m")


def test_a_damaged_cache_is_refused_by_name(archive, tmp_path):
    file = store(archive[:-1], tmp_path / "cache")
    with pytest.raises(ValueError, match=f"{file} is damaged, delete it and it will be downloaded again: SHA-256 of"):
        movielens.load(_archive=archive_of(archive))


def test_an_invalid_line_in_an_archive_is_named(tmp_path):
    file = store(b"", tmp_path / "cache")
    with zipfile.ZipFile(file, "w") as target:
        for name in formats.DIGESTS:
            target.writestr(f"ml-100k/{name}", "1|2\n")
        target.writestr("ml-100k/u.user", "1|24|M|writer\n")
    with pytest.raises(ValueError, match=r"^ml-100k.zip/ml-100k/u.user, line 1: expected the 5 columns"):
        movielens.load(_archive=archive_of(file.read_bytes()))


def test_a_missing_directory_is_an_error_that_names_it(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match=f"MovieLens directory {missing}: cannot read {missing}: No such file"):
        movielens.load(missing)


def test_a_file_instead_of_a_directory_is_an_error(directory):
    with pytest.raises(NotADirectoryError, match=r"movies.csv: Not a directory"):
        movielens.load(directory / "movies.csv")


@contextmanager
def without_root():
    """Drop root's permission to read all files for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_directory_is_an_error_that_names_it(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    with without_root(), pytest.raises(PermissionError, match=r"cannot read .*/locked.*: Permission denied"):
        movielens.load(locked)
