"""Directories that may be in a bucket."""

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
    from google.cloud.aiplatform.utils import gcs_utils

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, str(uri).rstrip("/").rpartition("/")[2])
        gcs_utils.download_from_gcs(f"{uri}/", str(directory))
        yield directory
