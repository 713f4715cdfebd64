"""No secret is in a tracked file, a notebook's output, or the build context of an image; a planted one is found."""

import random
import shutil
import string
import subprocess

import nbformat
import pytest

from tools.find_secrets import find_secrets, list_files
from tools.lock import ROOT

DRAW = random.Random(0)


def draw(size, letters=string.ascii_letters + string.digits):
    """Draw a text at run time, so that this file has no secret itself."""
    return "".join(DRAW.choices(letters, k=size))


SECRETS = {
    "AWS Access Key": "AKIA" + draw(16, string.ascii_uppercase),
    "GitHub Token": "ghp_" + draw(36),
    "Google Cloud key or token": "ya29." + draw(60),
    "Private Key": "-----BEGIN " + "PRIVATE KEY-----",
    "Basic Auth Credentials": f"postgresql://admin:{draw(12)}@db.internal/events",
    "Secret Keyword": f'password = "{draw(20)}"',
}
each_secret = pytest.mark.parametrize(("kind", "secret"), SECRETS.items())


@pytest.fixture
def tree(tmp_path):
    """A repository with a module, which .dockerignore lets into images, and no secret."""
    root = tmp_path / "checkout"
    (root / "src").mkdir(parents=True)
    (root / "src" / "module.py").write_text("x = 1\n")
    shutil.copy(ROOT / ".dockerignore", root)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    assert find_secrets(list_files(root)) == []
    return root


of_a_checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout by git")


@of_a_checkout
def test_the_repository_and_the_contexts_of_its_images_have_no_secret():
    files = list_files(ROOT)
    assert {ROOT / "00-env-setup.ipynb", ROOT / "src" / "recbandits" / "tf.py"} <= set(files)
    assert find_secrets(files) == []


@of_a_checkout
def test_one_line_alone_is_excepted():
    """The comment that excepts a line hides any secret in it."""
    comment = "pragma: " + "allowlist"
    files = [path for path in list_files(ROOT) if path.is_file() and comment in path.read_text(errors="ignore")]
    assert files == [ROOT / "tools" / "find_secrets.py"]


@each_secret
def test_a_secret_in_the_output_of_a_notebook_is_found(tree, kind, secret):
    cell = nbformat.v4.new_code_cell("show()", outputs=[nbformat.v4.new_output("stream", text=f"first\n{secret}\n")])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tree / "00-a.ipynb")
    subprocess.run(["git", "add", "."], cwd=tree, check=True)
    assert find_secrets(list_files(tree)) == [f"{tree / '00-a.ipynb'}:3: {kind}"]


@each_secret
def test_a_secret_in_a_log_is_found(tree, kind, secret):
    """Git ignores the logs of a run, which lie in a folder that the caller names."""
    (tree / "build" / "logs").mkdir(parents=True)
    (tree / "build" / "logs" / "00-a.log").write_text(f"started\nGET /?{secret}\n")
    assert find_secrets(list_files(tree)) == []
    assert find_secrets(list_files(tree, [tree / "build"])) == [f"{tree / 'build' / 'logs' / '00-a.log'}:2: {kind}"]


@each_secret
def test_a_secret_in_the_build_context_is_found_though_git_does_not_track_it(tree, kind, secret):
    (tree / "src" / "settings.py").write_text(f"# {secret}\n")
    (tree / "notes.py").write_text(f"# {secret}\n")  # neither tracked nor in the context
    assert find_secrets(list_files(tree)) == [f"{tree / 'src' / 'settings.py'}:1: {kind}"]
