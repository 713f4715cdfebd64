"""Find secrets: python -m tools.find_secrets [FOLDER ...].

It reads the files that git tracks, those that images are made of, and all files in the folders, such as those of a run.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from detect_secrets import SecretsCollection
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.settings import get_settings, transient_settings

from recbandits.platforms.images import context
from tools.notebooks import ROOT, read


class GoogleDetector(RegexBasedDetector):
    """API keys and access tokens of Google Cloud; service accounts' keys are found as private keys."""

    secret_type = "Google Cloud key or token"  # pragma: allowlist secret
    denylist: ClassVar = [re.compile(r"\bAIza[\w-]{35}\b"), re.compile(r"\bya29\.[\w.-]{20,}")]


# Those that know the form of a secret. Detectors of high entropy take hashes and pictures for secrets.
DETECTORS = (
    "AWSKeyDetector", "BasicAuthDetector", "GitHubTokenDetector", "GitLabTokenDetector", "JwtTokenDetector",
    "KeywordDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector", "SlackDetector",
    "StripeDetector",
)  # fmt: skip


def list_files(root, folders=()):
    """List the files to look into: those that git tracks, those that images are made of, and all below some folders."""
    command = ["git", "ls-files", "-z"]
    tracked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    below = [path for folder in folders for path in Path(folder).rglob("*")]
    return sorted({*(root / path for path in (*tracked, *context(root))), *below})


def find_secrets(files):
    """Return one text for each secret: path, line and kind; in a notebook, the line is that of its text."""
    plugins = [{"name": name} for name in DETECTORS]
    plugins.append({"name": GoogleDetector.__name__, "path": Path(__file__).as_uri()})
    findings = []
    with transient_settings({"plugins_used": plugins}), tempfile.TemporaryDirectory() as folder:
        # It finds nothing in a line that assigns the result of a call, and takes two fifths of the time.
        get_settings().disable_filters("detect_secrets.filters.heuristic.is_indirect_reference")
        for file in filter(Path.is_file, files):
            source = file
            if file.suffix == ".ipynb":  # in its JSON, quotes are escaped, and pictures are long
                source = Path(folder, "notebook.txt")
                source.write_text("\n".join(_texts(read(file))), encoding="utf-8")
            secrets = SecretsCollection()
            secrets.scan_file(str(source))
            findings += [f"{file}:{secret.line_number}: {secret.type}" for _, secret in secrets]
    return findings


def _texts(notebook):
    """Yield the sources and the outputs of a notebook, without pictures."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield from (output.get("text", ""), *output.get("traceback", ()))
            yield from (str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/"))


def main():
    if findings := find_secrets(list_files(ROOT, sys.argv[1:])):
        sys.exit("\n".join(findings))


if __name__ == "__main__":
    main()
