"""Write the links to Colab, Binder and Codespaces, and the first code cell, of every notebook: python -m tools.badges.

The repository's address is in one place, `[project.urls]` of pyproject.toml. The links are text, not pictures, which
would have to be loaded from other servers.
"""

import re
import tomllib
from urllib.parse import quote

import nbformat

from tools.notebooks import COLAB, ROOT, find_notebooks, read, tags
from tools.outputs import clean

BRANCH = "main"
LINKS = re.compile(r"\n\nOpen in \[Colab\]\([^\n]*$")
SETUP = """\
import sys

if "google.colab" in sys.modules:  # on Colab only: get the repository, install its packages, restart the kernel once
    import os
    import runpy
    import subprocess

    address, repository = "{address}", "/content/recbandits"
    if not os.path.isdir(repository):
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", address, repository], check=True)
    runpy.run_path(f"{{repository}}/tools/colab.py")["prepare"]("{folder}")"""


def address(root=ROOT):
    """Return the repository's address, `https://github.com/<owner>/<name>`."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["project"]["urls"]["Repository"]


def links(repository, path):
    """Return the line of links for a notebook.

    Args:
      repository: address of the repository on GitHub.
      path: pathlib.PurePath of the notebook in the repository.

    Returns:
      Markdown.
    """
    name = repository.removeprefix("https://github.com/")
    file = quote(path.as_posix())
    return (
        f"Open in [Colab](https://colab.research.google.com/github/{name}/blob/{BRANCH}/{file}) ·"
        f" [Binder](https://mybinder.org/v2/gh/{name}/{BRANCH}?urlpath={quote(f'lab/tree/{file}', safe='')}) ·"
        f" [Codespaces](https://codespaces.new/{name})"
    )


def write(path, root=ROOT):
    """Write the links and the first code cell of a notebook where they differ; the rest of the file stays as it is."""
    notebook, repository, name = read(path), address(root), path.relative_to(root)
    header, *rest = [cell for cell in notebook.cells if COLAB not in tags(cell)]
    header.source = LINKS.sub("", header.source) + "\n\n" + links(repository, name)
    setup = nbformat.v4.new_code_cell(SETUP.format(address=repository, folder=name.parent.as_posix()), id=COLAB)
    setup.metadata["tags"] = [COLAB, "remove-cell"]  # the latter leaves it out of the site
    notebook.cells = [header, setup, *rest]
    path.write_text(nbformat.writes(clean(notebook)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for path in find_notebooks():
        write(path)
