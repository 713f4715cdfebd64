"""No secret is in a tracked file, a notebook's output, or the build context of an image; a planted one is found."""

import random
import shutil
import string
import subprocess
import sys

import nbformat
import pytest

from tools import images
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


def write_secrets(folder, name, text):
    """Write a file for each kind of secret, in its last line; return the expected findings."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {kind: folder / name.format(number) for number, kind in enumerate(SECRETS)}
    for kind, file in files.items():
        file.write_text(text.format(SECRETS[kind]))
    return [f"{file}:{1 + text.count(chr(10))}: {kind}" for kind, file in files.items()]


def test_a_secret_in_the_output_of_a_notebook_is_found(tree):
    expected = []
    for number, (kind, secret) in enumerate(SECRETS.items()):
        outputs = [nbformat.v4.new_output("stream", text=f"first\n{secret}\n")]
        cell, file = nbformat.v4.new_code_cell("show()", outputs=outputs), tree / f"0{number}-a.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), file)
        expected.append(f"{file}:3: {kind}")
    subprocess.run(["git", "add", "."], cwd=tree, check=True)
    assert find_secrets(list_files(tree)) == expected


def test_a_secret_among_the_arguments_of_a_call_is_found(tree):
    file = tree / "src" / "client.py"
    file.write_text(f"client = connect('{SECRETS['GitHub Token']}')\n")
    assert find_secrets([file]) == [f"{file}:1: GitHub Token"]


def test_a_secret_in_a_log_is_found(tree):
    """Git ignores the logs of a run, which lie in a folder that the caller names."""
    expected = write_secrets(tree / "build" / "logs", "0{}.log", "started\nGET /?{}")
    assert find_secrets(list_files(tree)) == []
    assert find_secrets(list_files(tree, [tree / "build"])) == expected


def test_a_secret_in_the_build_context_is_found_though_git_does_not_track_it(tree):
    expected = write_secrets(tree / "src", "settings_{}.py", "# {}")
    write_secrets(tree, "notes_{}.py", "# {}")  # neither tracked nor in the context
    assert find_secrets(list_files(tree)) == expected


def test_no_image_is_built_of_files_with_secrets(tree, monkeypatch):
    expected = write_secrets(tree / "src", "settings_{}.py", "# {}")
    shutil.copytree(ROOT / "docker", tree / "docker")
    monkeypatch.setattr(images, "checkout", lambda: tree)
    monkeypatch.setattr(sys, "argv", ["images", "serve"])
    with pytest.raises(SystemExit) as error:
        images.main()
    assert error.value.code.splitlines() == ["no image was built, as its files have secrets:", *expected]
