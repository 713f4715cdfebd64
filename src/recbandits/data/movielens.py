"""MovieLens from a directory, the cache, the web or, where none of them has it, a synthetic set of the same shape.

MovieLens is not part of this project: its licence does not allow redistribution.
"""

import os

from recbandits.checks import require
from recbandits.data import formats, synthetic
from recbandits.data.download import Archive, DownloadError, find_folder
from recbandits.data.tables import GENRES, STARS, MovieLens

__all__ = ["ARCHIVES", "DIRECTORY_VARIABLE", "GENRES", "STARS", "MovieLens", "load"]

DIRECTORY_VARIABLE = "RECBANDITS_MOVIELENS"

# The certificate of the server has expired; the digest makes the second address as safe as the first. The digests are
# those of TensorFlow Datasets (url_checksums/movielens.txt), confirmed by those that SecretFlow has for 1M and OmniRec
# for latest-small. GroupLens may replace latest-small some day: this is the version of September 2018.
_DIGESTS = {
    "ml-100k": "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "ml-1m": "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    "ml-latest-small": "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
}
_URLS = ("https://files.grouplens.org/datasets/movielens", "http://files.grouplens.org/datasets/movielens")
ARCHIVES = {
    name: Archive(tuple(f"{url}/{name}.zip" for url in _URLS), digest, name) for name, digest in _DIGESTS.items()
}
_TITLES = {"ml-1m": "MovieLens 1M", "ml-latest-small": "MovieLens small"}  # 100K is known by its files


def load(
    directory: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
    offline: bool = False,
    *,
    name: str | None = None,
    _archive: Archive | None = None,
) -> MovieLens:
    """Load MovieLens and print one line that names the source.

    Sources, in this order: the directory, if one is given; the archive in the cache; the official archive from the web,
    verified by its SHA-256 and then stored in the cache; the synthetic set. A directory or an archive that is missing
    or damaged is an error, no other source replaces it.

    Args:
      directory: folder with the files of 100K, 1M, 10M, or a CSV set (`formats.FORMATS`); None is $RECBANDITS_MOVIELENS
        unless a name is given.
      cache: folder for the archives; None is $RECBANDITS_CACHE, or ~/.cache/recbandits.
      offline: do not try the web.
      name: of the archive, one of ARCHIVES; None is "ml-100k". Larger sets are read from a directory only.

    Raises:
      OSError: the directory, or a file in it, is missing or cannot be read.
      ValueError: a file is invalid; the sentence names file, line and reason. Or a directory and a name are given.
    """
    require(name is None or not directory, "name", "None where a directory is given", name)
    require(name is None or name in ARCHIVES, "name", f"one of {', '.join(ARCHIVES)}", name)
    directory = directory or (os.environ.get(DIRECTORY_VARIABLE) if name is None else None)
    archive = _archive or ARCHIVES[name or "ml-100k"]
    try:
        folder, origin = find_folder(directory, archive, cache, offline)
        data = formats.read(folder, origin, "" if directory else _TITLES.get(archive.folder, ""))
    except DownloadError as error:
        print(
            f"NO MOVIELENS: {error}. A synthetic set stands in for it, and no result below is MovieLens'. "
            f"For the real one set {DIRECTORY_VARIABLE} to the unpacked folder {archive.folder}."
        )
        data = synthetic.generate()
    except OSError as error:
        if not directory or error.filename is None:  # the message of `formats.read` is a sentence
            raise
        raise type(error)(f"MovieLens directory {directory}: cannot read {error.filename}: {error.strerror}") from error
    print(f"DATA: {data}")
    return data
