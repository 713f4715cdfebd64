"""Fetch an archive whose SHA-256 is known, and keep it: all of it or nothing."""

import hashlib
import http.client
import os
import tempfile
import time
import urllib.request
from dataclasses import dataclass

from tqdm import tqdm


@dataclass(frozen=True)
class Archive:
    """A file on the web.

    Attributes:
      urls: where it is, tried in this order.
      sha256: its digest in hexadecimal digits; it makes the transport irrelevant.
    """

    urls: tuple[str, ...]
    sha256: str


# The certificate of the server has expired: then the second address serves.
MOVIELENS_100K = Archive(
    urls=(
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        "http://files.grouplens.org/datasets/movielens/ml-100k.zip",
    ),
    sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
)


class DownloadError(OSError):
    """No address gave the archive; the message says why for each."""


def fetch(archive, timeout=5.0, deadline=60.0):
    """Download and verify an archive.

    Args:
      archive: Archive
      timeout: seconds to wait for the server at each step.
      deadline: seconds for the whole file from one address.

    Returns:
      bytes

    Raises:
      DownloadError: all addresses failed, or gave another file.
    """
    reasons = []
    for url in archive.urls:
        try:
            return verify(_get(url, timeout, deadline), archive)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', error)}")
    raise DownloadError("; ".join(reasons))


def verify(content, archive):
    """Give `content` (bytes) back, or raise ValueError when its digest is not the archive's."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != archive.sha256:
        raise ValueError(f"SHA-256 must be {archive.sha256}, got {digest} ({len(content):,} bytes)")
    return content


def keep(content, file):
    """Write `content` (bytes) to `file` (`pathlib.Path`) so that it is there completely or not at all.

    Raises:
      OSError: it cannot be written; nothing is left behind.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(draft, file)
    except BaseException:
        os.unlink(draft)
        raise


def _get(url, timeout, deadline):
    """Body of a web page, with a progress bar on a terminal."""
    end = time.monotonic() + deadline
    with urllib.request.urlopen(url, timeout=timeout) as response:
        size = int(response.headers.get("Content-Length") or 0)
        chunks = []
        look = {"desc": "MovieLens", "unit": "B", "unit_scale": True, "leave": False, "disable": None}
        with tqdm(total=size or None, **look) as progress:
            while chunk := response.read1(1 << 16):
                chunks.append(chunk)
                progress.update(len(chunk))
                if time.monotonic() > end:
                    raise TimeoutError(f"only {progress.n:,} bytes came in {deadline:.0f} seconds")
    content = b"".join(chunks)
    if len(content) < size:
        raise OSError(f"the connection ended after {len(content):,} of {size:,} bytes")
    return content
