"""Files in Cloud Storage. They are read by `recbandits.serving.manifest`, where no object's path leaves the folder."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from recbandits.config import Config

if TYPE_CHECKING:
    from google.cloud.storage import Bucket


def bucket(config: Config) -> "Bucket":
    """Return the `google.cloud.storage.Bucket` of a configuration."""
    from google.cloud import storage

    return storage.Client(config.project).bucket(config.bucket)


def upload(config: Config, directory: str | Path, prefix: str) -> str:
    """Copy the files of a directory into the bucket, several at a time, and return their gs:// URI."""
    from google.cloud.storage import transfer_manager

    paths = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    names = [path.relative_to(directory).as_posix() for path in paths]
    transfer_manager.upload_many_from_filenames(
        bucket(config),
        names,
        source_directory=str(directory),
        blob_name_prefix=f"{prefix}/",
        raise_exception=True,
        worker_type=transfer_manager.THREAD,  # processes would not pay for small files
    )
    return f"gs://{config.bucket}/{prefix}"


def keep(config: Config, content: bytes, folder: str, suffix: str) -> dict[str, str]:
    """Keep bytes in the bucket under their digest, where the same ones are sent once.

    Returns:
      dict in the shape of the `StorageSource` of Cloud Build and Cloud Functions.
    """
    name = f"{folder}/{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    blob = bucket(config).blob(name)
    if not blob.exists():
        blob.upload_from_string(content)
    return {"bucket": config.bucket, "object": name}
