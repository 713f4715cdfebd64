"""Where the data comes from: the order of the sources, and that none is taken silently in place of a broken one."""

import errno
import hashlib
import os
import zipfile
from contextlib import contextmanager

import pytest

from recbandits.data import download, formats, movielens, synthetic
from recbandits.data.download import Archive

NOWHERE = ("http://127.0.0.1:9/ml-100k.zip",)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch, tmp_path):
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


def expect(content, urls=NOWHERE):
    return Archive(urls, hashlib.sha256(content).hexdigest())


def test_a_directory_given_as_an_argument_goes_before_the_variable(directory, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RECBANDITS_MOVIELENS", str(tmp_path / "missing"))
    data = movielens.load(directory)
    assert data.source == "foreign data in the MovieLens 100K format (directory)"
    assert capsys.readouterr().out == f"DATA: {data.source}: 943 users, 1,682 movies, 100,000 ratings\n"


def test_the_variable_goes_before_the_cache(directory, monkeypatch, tmp_path):
    monkeypatch.setenv("RECBANDITS_MOVIELENS", str(directory))
    download.keep(b"damaged", tmp_path / "cache" / "ml-100k.zip")
    assert movielens.load().source.endswith("(directory)")


def test_the_cache_goes_before_the_web(archive, tmp_path):
    download.keep(archive, tmp_path / "other" / "ml-100k.zip")
    data = movielens.load(cache=tmp_path / "other", _archive=expect(archive))
    assert data.source == "foreign data in the MovieLens 100K format (cache)"
    assert len(data.ratings) == 100_000


def test_a_damaged_cache_is_refused_and_named(archive, tmp_path):
    file = tmp_path / "cache" / "ml-100k.zip"
    download.keep(archive[:-1], file)
    with pytest.raises(ValueError, match=f"{file} is damaged, delete it to have it fetched again: SHA-256 must be"):
        movielens.load(_archive=expect(archive))


def test_a_bad_line_in_an_archive_is_named_too(tmp_path):
    file = tmp_path / "cache" / "ml-100k.zip"
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as target:
        for name in formats.DIGESTS:
            target.writestr(f"ml-100k/{name}", "1|2\n")
        target.writestr("ml-100k/u.user", "1|24|M|writer\n")
    with pytest.raises(ValueError, match=r"^ml-100k.zip/ml-100k/u.user, line 1: expected the 5 columns"):
        movielens.load(_archive=expect(file.read_bytes()))


def test_offline_gives_the_synthetic_set_and_says_so_loudly(capsys):
    data = movielens.load(offline=True)
    assert data.source == "synthetic, shaped like MovieLens 100K"
    assert not data.is_real
    notice, line = capsys.readouterr().out.splitlines()
    assert notice.startswith("NO MOVIELENS: offline was asked for. A synthetic set stands in for it")
    assert line == "DATA: synthetic, shaped like MovieLens 100K: 943 users, 1,682 movies, 100,000 ratings"


def test_a_failed_download_gives_the_synthetic_set_says_why_and_leaves_no_cache(tmp_path, capsys):
    data = movielens.load(_archive=Archive(NOWHERE, "0" * 64))
    assert data.source.startswith("synthetic")
    assert "NO MOVIELENS: the download failed (http://127.0.0.1:9/ml-100k.zip: " in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()


def test_a_missing_directory_is_an_error_that_names_it(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match=f"MovieLens directory {missing}: cannot read {missing}: No such file"):
        movielens.load(missing)


def test_a_file_instead_of_a_directory_is_an_error(directory):
    with pytest.raises(NotADirectoryError, match=r"u.data: Not a directory"):
        movielens.load(directory / "u.data")


def test_an_empty_directory_is_an_error_that_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot read .*/u.user: No such file or directory"):
        movielens.load(tmp_path)


@contextmanager
def as_nobody():
    """Root may read everything: be somebody else for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_directory_is_an_error_that_names_it(directory, tmp_path):
    locked = tmp_path / "locked"
    formats.write(synthetic.generate(), locked)
    locked.chmod(0)
    try:
        with (
            as_nobody(),
            pytest.raises(PermissionError, match=r"cannot read .*/locked.*: Permission denied"),
        ):
            movielens.load(locked)
    finally:
        locked.chmod(0o700)


def test_without_space_for_the_cache_the_download_is_used_and_nothing_is_left_behind(
    archive, tmp_path, monkeypatch, capsys
):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download, "fetch", lambda expected: archive)
    monkeypatch.setattr(os, "replace", full)
    data = movielens.load(_archive=expect(archive))
    assert data.source.endswith("(download)")
    assert len(data.ratings) == 100_000
    assert "will be fetched again next time: No space left on device" in capsys.readouterr().out
    assert list((tmp_path / "cache").iterdir()) == []
