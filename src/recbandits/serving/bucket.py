"""Directories that may be in a bucket."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def here(uri):
    """A directory of this machine with what is at a place; for use in a `with` block.

    Args:
      uri: path of a directory, which is given as it is, or a gs:// URI, of which a copy is kept for the block.

    Yields:
      pathlib.Path
    """
    if not str(uri).startswith("gs://"):
        yield Path(uri)
        return
    from google.cloud import storage

    bucket, _, name = str(uri).removeprefix("gs://").strip("/").partition("/")
    prefix = f"{name}/" if name else ""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, name.rpartition("/")[2] or bucket)
        directory.mkdir()
        for blob in storage.Client(project=None).list_blobs(bucket, prefix=prefix):  # reading needs no project
            path = Path(os.path.normpath(directory / blob.name.removeprefix(prefix)))
            if not blob.name.endswith("/") and path.is_relative_to(directory):  # no folder's placeholder, no "../x"
                path.parent.mkdir(parents=True, exist_ok=True)
                blob.download_to_filename(path)
        yield directory
