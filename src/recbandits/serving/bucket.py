"""Directories that are on this machine or in a bucket of Cloud Storage."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def local_directory(uri: str | Path) -> Iterator[Path]:
    """Provide a directory on this machine for the duration of a `with` block.

    Args:
      uri: path of a directory, which is yielded as it is, or a gs:// URI, of which a temporary copy is made. The copy
        needs the extra `serve`. It does not exist where the bucket has no such directory.

    Yields:
      the directory.
    """
    if not str(uri).startswith("gs://"):
        yield Path(uri)
        return
    from google.cloud import storage

    bucket, _, name = str(uri).removeprefix("gs://").strip("/").partition("/")
    prefix = f"{name}/" if name else ""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, name.rpartition("/")[2] or bucket)
        for blob in storage.Client(project=None).list_blobs(bucket, prefix=prefix):  # reading needs no project
            path = Path(os.path.normpath(directory / blob.name.removeprefix(prefix)))
            if not blob.name.endswith("/") and path.is_relative_to(directory):  # no folder's placeholder, no "../x"
                path.parent.mkdir(parents=True, exist_ok=True)
                blob.download_to_filename(path)
        yield directory
