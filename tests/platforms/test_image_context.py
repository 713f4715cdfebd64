"""What may get into an image: what it needs, and nothing of data, results or secrets."""

import json
import shlex
import shutil
import subprocess

import pytest

from recbandits.platforms.images import checkout, context, dockerfile, instructions, rebuilt
from recbandits.platforms.protocol import PlatformError
from tools.lock import ROOT

NEEDED = [
    "pyproject.toml",
    "requirements.txt",
    "requirements/build.txt",
    "requirements/gpu.txt",
    "requirements/serve.txt",
    "requirements/train.txt",
    "README.md",
    "LICENSE",
    "src/recbandits/__init__.py",
]
SETS = {
    "lab": ["requirements/train.txt", "requirements.txt"],
    "serve": ["requirements/serve.txt"],
    "train": ["requirements/train.txt"],
    "train-gpu": ["requirements/train.txt", "requirements/gpu.txt"],
}
UNWANTED = [
    ".git/config",
    ".venv/bin/python",
    ".env",
    "src/.env",
    "key.json",
    "recbandits.toml",
    "01-online-bandit-simulation/recbandits.toml",
    "artifacts/policies/p/saved_model.pb",
    "01-online-bandit-simulation/artifacts/runs/log",
    "02-supervised-to-bandit-training/.ipynb_checkpoints/02a.ipynb",
    "build/notebooks/00-env-setup.ipynb",
    "ml-100k/u.data",
    "src/ml-100k/u.user",
    "learning/ml-1m/ratings.dat",
    "01-online-bandit-simulation/train.tfrecord",
    "src/recbandits/__pycache__/config.cpython-311.pyc",
    "tests/test_config.py",
    "benchmarks/run.py",
]
NAMES = list(SETS)
INSTALL = "pip install --compile --no-deps"


@pytest.fixture
def tree(tmp_path):
    """A checkout with everything that an image needs, and with what people leave in one."""
    root = tmp_path / "checkout"
    for path in (".dockerignore", ".gcloudignore", *NEEDED, "01-online-bandit-simulation/README.md"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, root / path)
    shutil.copytree(ROOT / "docker", root / "docker")
    for path in UNWANTED:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("secret")
    return root


def let_in_by_git(root, git):
    """The files that .gcloudignore lets through, whose rules are those of .gitignore, according to git."""
    subprocess.run(["git", "init", "--quiet", "--bare", git], check=True)
    command = ["git", f"--git-dir={git}", f"--work-tree={root}", "ls-files", "-z", "--others"]
    done = subprocess.run([*command, "--exclude-from=.gcloudignore"], cwd=root, capture_output=True, text=True)
    return sorted(done.stdout.split("\0")[:-1])


def install(file):
    return f"{INSTALL} --require-hashes -r {file}"


def steps(name):
    return instructions(dockerfile(name, ROOT).read_text(encoding="utf-8"))


def values(name, keyword):
    return [value for found, value in steps(name) if found == keyword]


def test_nothing_unwanted_gets_in_and_nothing_needed_stays_out(tree):
    wanted = {".dockerignore", *NEEDED, "01-online-bandit-simulation/README.md"}
    wanted |= {f"docker/{name}.Dockerfile" for name in NAMES}
    assert set(context(tree)) == wanted


@pytest.mark.parametrize("line", ["/*", "**/artifacts", "**/.env", "!/src"])
def test_each_line_counts(tree, line):
    before = context(tree)
    lines = (tree / ".dockerignore").read_text().splitlines()
    lines.remove(line)
    (tree / ".dockerignore").write_text("\n".join(lines))
    assert context(tree) != before


def test_docker_and_google_cloud_let_the_same_in(tree, tmp_path):
    assert (ROOT / ".gcloudignore").read_text() == (ROOT / ".dockerignore").read_text()
    assert let_in_by_git(tree, tmp_path / "a.git") == context(tree)
    assert let_in_by_git(ROOT, tmp_path / "b.git") == context(ROOT)


def test_every_module_and_notebook_is_in_the_context():
    files = set(context(ROOT))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")}
    notebooks = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("0*/*.ipynb")}
    assert len(modules) > 50
    assert modules | notebooks <= files
    folders = {path.partition("/")[0] for path in files if "/" in path and not path[0].isdigit()}
    assert folders == {"src", "docker", "docs", "learning", "requirements"}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_is_in_the_context(name):
    files = context(ROOT)
    for value in values(name, "COPY"):
        words = [word for word in shlex.split(value) if not word.startswith("--")]
        if "--from" not in value:
            for source in words[:-1]:
                assert source == "." or any(f"{path}/".startswith(f"{source}/") for path in files), source


def test_the_images_have_their_first_layers_in_common():
    """Up to the stage of their own they are the same: base image, user, and the wheel, which is built once."""
    texts = [(ROOT / "docker" / f"{name}.Dockerfile").read_text() for name in NAMES]
    common = {text[text.index("ARG PYTHON") : text.rindex("FROM ")] for text in texts}
    assert len(common) == 1
    assert common.pop().count("FROM ") == 2


def test_the_images_with_tensorflow_have_its_layer_in_common():
    """2 GB, which Docker stores and sends once."""
    with_tensorflow = [steps(name) for name, files in SETS.items() if "requirements/train.txt" in files]
    last = ("RUN", install("requirements/train.txt"))
    assert len({tuple(each[: each.index(last)]) for each in with_tensorflow}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_image_installs_its_own_sets_before_the_wheel(name):
    """Each set is copied alone, so that a change of the code installs the wheel again and nothing else."""
    directories = ["./" if file == "requirements.txt" else "requirements/" for file in SETS[name]]
    copies = [("COPY", f"{file} {directory}") for file, directory in zip(SETS[name], directories, strict=True)]
    runs = [("RUN", install(file)) for file in SETS[name]]
    own = steps(name)[-steps(name)[::-1].index(("FROM", "base")) :]
    found = [step for step in own if step.keyword in ("COPY", "RUN")][: 2 * len(runs) + 2]
    wheel = [("COPY", "--from=wheel /opt/recbandits/dist dist"), ("RUN", f"{INSTALL} dist/*.whl")]
    assert found == [*(step for pair in zip(copies, runs, strict=True) for step in pair), *wheel]


def test_the_image_for_gpus_is_the_training_image_with_two_more_steps():
    """So what is proven of that one holds for this one; CUDA's libraries are not installed here."""
    plain, gpu = steps("train"), steps("train-gpu")
    more = [("COPY", "requirements/gpu.txt requirements/"), ("RUN", install("requirements/gpu.txt"))]
    assert [step for step in gpu if step not in more] == plain


@pytest.mark.parametrize("name", NAMES)
def test_an_image_keeps_to_the_rules(name):
    """Slim Python of one minor version, only pinned packages, no secret, not root, a health check."""
    (default,) = values(name, "ARG")
    assert default == "PYTHON=3.11"
    assert values(name, "FROM")[0].startswith("python:${PYTHON}-slim-")
    assert values(name, "ADD") == []
    settings = " ".join(values(name, "ENV") + values(name, "ARG")).lower()
    assert not [word for word in ("secret", "token", "password", "key", "credential") if word in settings]
    assert "pythondontwritebytecode" not in settings
    runs = values(name, "RUN")
    assert not [run for run in runs if "http" in run or "curl" in run or "apt" in run]
    assert all(
        "--no-deps" in run and ("--require-hashes" in run) == ("-r" in run.split()) for run in runs if "pip" in run
    )
    (user,), (useradd,) = values(name, "USER"), [run for run in runs if run.startswith("useradd")]
    assert user.isdigit()
    assert int(user) > 0
    assert f"--uid {user} " in useradd
    keywords = [keyword for keyword, _ in steps(name)]
    last_root = max(position for position, keyword in enumerate(keywords) if keyword == "RUN")
    assert last_root < keywords.index("USER") < keywords.index("HEALTHCHECK") < len(keywords) - 1
    for keyword in ("ENTRYPOINT", "CMD"):
        assert all(isinstance(json.loads(value), list) for value in values(name, keyword)), (
            "exec form, or signals get lost"
        )


def test_binder_and_the_dev_container_are_the_lab_image():
    lab = (ROOT / "docker" / "lab.Dockerfile").read_text()
    assert (ROOT / ".binder" / "Dockerfile").read_text() == lab
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    build = container["build"]
    assert (ROOT / ".devcontainer" / build["dockerfile"]).resolve() == ROOT / "docker" / "lab.Dockerfile"
    assert (ROOT / ".devcontainer" / build["context"]).resolve() == ROOT
    assert next(run for run in values("lab", "RUN") if run.startswith("useradd")).endswith(container["remoteUser"])
    assert container["containerEnv"]["PYTHONPATH"].endswith("/src"), "what is edited is what is imported"
    assert container["forwardPorts"] == [int(port) for port in values("lab", "EXPOSE")]


def test_binder_can_start_its_own_command():
    """It replaces CMD by its own command, wants the user's id to be 1000, and a home that this user may write to."""
    assert values("lab", "ENTRYPOINT") == []
    assert values("lab", "USER") == ["1000"]
    (useradd,) = [shlex.split(run) for run in values("lab", "RUN") if run.startswith("useradd")]
    assert values("lab", "WORKDIR")[-1].startswith(useradd[useradd.index("--home-dir") + 1])


@pytest.mark.parametrize("name", ["Train", "train ", "../train", "gpu", ""])
def test_an_image_that_does_not_exist_is_refused_with_a_sentence(name):
    with pytest.raises(PlatformError, match=r"there is no image .*: docker/ has the Dockerfiles of lab, serve, train"):
        dockerfile(name, ROOT)


def test_outside_a_checkout_there_is_nothing_to_build(tmp_path):
    assert checkout(ROOT / "src" / "recbandits") == ROOT
    with pytest.raises(PlatformError, match="images are built from a checkout of the repository"):
        checkout(tmp_path)


def test_instructions_are_split_as_docker_does():
    text = "# syntax\nfrom a AS b\n\nRUN one \\\n    # not a step\n    && two\nENV A=1 \\\n    B=2\n"
    assert instructions(text) == [("FROM", "a AS b"), ("RUN", "one && two"), ("ENV", "A=1 B=2")]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("requirements.txt", "011111111"),
        ("src/a.py", "000010111"),
        ("README.md", "000000011"),
        ("source.py", "000000000"),
    ],
)
def test_steps_are_repeated_from_the_first_one_that_copies_what_changed(changed, expected):
    """Through stages: one that begins with a stage, or copies from it, follows it."""
    text = (
        "FROM python AS lock\nCOPY requirements.txt ./\nRUN pip install\nFROM lock AS wheel\nCOPY src src\n"
        "FROM lock\nCOPY --from=wheel /dist dist\nCOPY --chown=1 README.md ./\nUSER 1"
    )
    assert "".join(str(int(again)) for again in rebuilt(instructions(text), changed)) == expected
