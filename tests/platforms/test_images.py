"""Contents of the images, without data, results or secrets, and the command that builds them."""

import json
import re
import shlex
import shutil
import subprocess

import pytest

from recbandits.config import Config
from recbandits.platforms.images import DOCKERFILE, checkout, context, image_steps, instructions, targets
from recbandits.platforms.local.images import LocalImages
from recbandits.platforms.protocol import PlatformError
from tools.lock import ROOT
from tools.sbom import find_packages

NEEDED = [
    "pyproject.toml",
    "requirements/build.txt",
    "requirements/gpu.txt",
    "requirements/lab.txt",
    "requirements/serve.txt",
    "requirements/train.txt",
    "README.md",
    "LICENSE",
    "src/recbandits/__init__.py",
    "playground/__main__.py",
    "tools/run_notebooks.py",
]
SETS = {
    "serve": ["requirements/serve.txt"],
    "train": ["requirements/train.txt"],
    "lab": ["requirements/train.txt", "requirements/lab.txt"],
    "train-gpu": ["requirements/train.txt", "requirements/gpu.txt"],
}
UNWANTED = [
    ".git/config",
    ".venv/bin/python",
    ".env",
    "src/.env",
    "learning/.env.local",
    "docs/.netrc",
    "playground/server.key",
    "playground/server.pem",
    "03-ranking/ratings.csv",
    "03-ranking/.git/config",
    "03-ranking/.venv/bin/python",
    "src/ml-latest.zip",
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
    "requirements.txt",
]
NAMES = list(SETS)
INSTALL = "pip install --compile --no-deps"


@pytest.fixture
def tree(tmp_path):
    """A checkout with all files of an image, and with files that people leave in one."""
    root = tmp_path / "checkout"
    for path in (".dockerignore", ".gcloudignore", *NEEDED, "01-online-bandit-simulation/README.md"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, root / path)
    shutil.copytree(ROOT / "docker", root / "docker")
    for path in UNWANTED:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("secret")
    return root


def files_tracked_by_git(root, git):
    """The files that .gcloudignore lets through, whose rules are those of .gitignore, according to git."""
    subprocess.run(["git", "init", "--quiet", "--bare", git], check=True)
    command = ["git", f"--git-dir={git}", f"--work-tree={root}", "ls-files", "-z", "--others"]
    process = subprocess.run([*command, "--exclude-from=.gcloudignore"], cwd=root, capture_output=True, text=True)
    return sorted(process.stdout.split("\0")[:-1])


def install(file):
    return f"{INSTALL} --require-hashes -r {file}"


def steps(name):
    return image_steps(name, ROOT)


def values(name, keyword):
    return [value for instruction, value in steps(name) if instruction == keyword]


def test_nothing_unwanted_gets_in_and_nothing_needed_stays_out(tree):
    expected = {".dockerignore", *NEEDED, "01-online-bandit-simulation/README.md"}
    expected |= {DOCKERFILE}
    assert set(context(tree)) == expected


def test_docker_and_google_cloud_let_the_same_in(tree, tmp_path):
    assert (ROOT / ".gcloudignore").read_text() == (ROOT / ".dockerignore").read_text()
    assert files_tracked_by_git(tree, tmp_path / "a.git") == context(tree)
    assert files_tracked_by_git(ROOT, tmp_path / "b.git") == context(ROOT)


def test_every_module_and_notebook_is_in_the_context():
    files = set(context(ROOT))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")}
    notebooks = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("0*/*.ipynb")}
    assert len(modules) > 50
    assert modules | notebooks <= files
    folders = {path.partition("/")[0] for path in files if "/" in path and not path[0].isdigit()}
    assert folders == {"src", "docker", "docs", "learning", "playground", "requirements", "tools"}


def test_what_is_copied_is_in_the_context():
    files = context(ROOT)
    for value in (value for name in NAMES for value in values(name, "COPY")):
        words = [word for word in shlex.split(value) if not word.startswith("--")]
        if "--from" not in value:
            for source in words[:-1]:
                assert source == "." or any(f"{path}/".startswith(f"{source}/") for path in files), source


def test_each_image_has_its_own_stages_and_those_that_it_needs():
    stages = {name: [value.partition(" AS ")[2] for value in values(name, "FROM")] for name in NAMES}
    assert stages == {
        "serve": ["base", "wheel", "serve"],
        "train": ["base", "wheel", "tensorflow", "train"],
        "train-gpu": ["base", "wheel", "tensorflow", "train-gpu"],
        "lab": ["base", "wheel", "tensorflow", "lab"],
    }
    assert targets(ROOT) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_image_installs_its_own_sets_before_the_wheel(name):
    """Each set is copied alone, so that a change of the code installs the wheel again and nothing else."""
    copies = [("COPY", f"{file} requirements/") for file in SETS[name]]
    runs = [("RUN", install(file)) for file in SETS[name]]
    layers = [step for step in steps(name) if step.keyword in ("COPY", "RUN")]
    after_the_wheel = layers[layers.index(("RUN", "pip wheel --no-deps --no-build-isolation --wheel-dir dist .")) + 1 :]
    wheel = [("COPY", "--from=wheel /opt/recbandits/dist dist"), ("RUN", f"{INSTALL} dist/*.whl")]
    expected = [*(step for pair in zip(copies, runs, strict=True) for step in pair), *wheel]
    assert after_the_wheel[: len(expected)] == expected


def test_the_image_for_gpus_differs_from_the_training_image_in_what_a_gpu_needs():
    """So what is proven of that one holds for this one."""
    plain, gpu = steps("train"), steps("train-gpu")
    assert [keyword for keyword, _ in gpu if (keyword, _) not in plain] == ["FROM", "COPY", "RUN", "ENV", "ENV"]
    assert [step for step in plain if step not in gpu] == [("FROM", "tensorflow AS train")]
    variables = dict(word.split("=", 1) for value in values("train-gpu", "ENV") for word in value.split())
    assert variables["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64:/usr/local/nvidia/lib"
    assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert variables["RECBANDITS_ACCELERATOR"] == "GPU"


@pytest.mark.parametrize("name", NAMES)
def test_an_image_keeps_to_the_rules(name):
    """Slim Python by its digest, only pinned packages, no secret, a health check; not root, where that is possible."""
    (default,) = values(name, "ARG")
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", default)
    assert values(name, "FROM")[0] == "${BASE} AS base"
    assert values(name, "ADD") == []
    settings = " ".join(values(name, "ENV") + values(name, "ARG")).lower()
    assert not [word for word in ("secret", "token", "password", "key", "credential") if word in settings]
    assert "pythondontwritebytecode" not in settings
    runs = values(name, "RUN")
    assert not [run for run in runs if "http" in run or "curl" in run or "apt" in run]
    assert all(
        "--no-deps" in run and ("--require-hashes" in run) == ("-r" in run.split()) for run in runs if "pip" in run
    )
    (useradd,) = [run for run in runs if run.startswith("useradd")]
    assert "--uid 1000 " in useradd
    assert values(name, "USER") == ([] if name.startswith("train") else ["1000"]), "tuning jobs write as root"
    keywords = [keyword for keyword, _ in steps(name)]
    last_run = max(position for position, keyword in enumerate(keywords) if keyword == "RUN")
    assert all(last_run < keywords.index(keyword) for keyword in ("USER", "HEALTHCHECK") if keyword in keywords)
    python_is_first = name.startswith("train")  # uvicorn and JupyterLab have handlers of their own for SIGTERM
    assert values(name, "STOPSIGNAL") == (["SIGINT"] if python_is_first else [])
    for keyword in ("ENTRYPOINT", "CMD"):
        assert all(isinstance(json.loads(value), list) for value in values(name, keyword)), (
            "exec form, or signals get lost"
        )


def test_binder_and_the_dev_container_are_the_lab_image():
    text = (ROOT / DOCKERFILE).read_text()
    assert (ROOT / ".binder" / "Dockerfile").read_text() == text
    assert instructions(text)[-1] == ("FROM", "lab"), "Binder names no target"
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    build = container["build"]
    assert (ROOT / ".devcontainer" / build["dockerfile"]).resolve() == ROOT / DOCKERFILE
    assert build["target"] == "lab"
    assert (ROOT / ".devcontainer" / build["context"]).resolve() == ROOT
    assert next(run for run in values("lab", "RUN") if run.startswith("useradd")).endswith(container["remoteUser"])
    assert container["containerEnv"]["PYTHONPATH"].endswith("/src"), "what is edited is what is imported"
    assert container["forwardPorts"] == [int(port) for port in values("lab", "EXPOSE")]


def test_binder_can_start_its_own_command():
    """It replaces CMD by `jupyter`, wants the user's id to be 1000, a home and files that it may write to."""
    assert {"notebook", "jupyterlab"} <= find_packages("lab").keys()
    assert values("lab", "COPY")[-1] == "--chown=1000:1000 . /app/notebooks/"
    assert values("lab", "ENTRYPOINT") == []
    assert values("lab", "USER") == ["1000"]
    (useradd,) = [shlex.split(run) for run in values("lab", "RUN") if run.startswith("useradd")]
    assert values("lab", "WORKDIR")[-1].startswith(useradd[useradd.index("--home-dir") + 1])


def test_an_image_that_does_not_exist_is_refused_with_a_message():
    sentence = r"there is no image .*: docker/Dockerfile has serve, train, lab, train-gpu$"
    for name in ("Train", ""):
        with pytest.raises(PlatformError, match=sentence):
            image_steps(name, ROOT)


def test_outside_a_checkout_there_is_nothing_to_build(tmp_path):
    assert checkout(ROOT / "src" / "recbandits") == ROOT
    with pytest.raises(PlatformError, match="images are built from a checkout of the repository"):
        checkout(tmp_path)


def test_instructions_are_split_as_docker_does():
    text = "# syntax\nfrom a AS b\n\nRUN one \\\n    # not a step\n    && two\nENV A=1 \\\n    B=2\n"
    assert instructions(text) == [("FROM", "a AS b"), ("RUN", "one && two"), ("ENV", "A=1 B=2")]


LABELS = ["--label", "app=recbandits", "--label", "prefix=recbandits", "--label", "version=v7"]
OPTIONS = ["--file", DOCKERFILE, "--target", "serve", "--tag", "recbandits/serve:v7", *LABELS, "."]
COMMANDS = {
    "docker": ["build", *OPTIONS],
    "podman": ["build", "--format", "docker", "--layers", *OPTIONS],
    "buildah": ["build", "--isolation", "chroot", "--format", "docker", "--layers", *OPTIONS],
}


@pytest.fixture
def put_engine_on_path(monkeypatch, tmp_path):
    """Function that puts a program on an otherwise empty PATH, which records its working directory and arguments."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.chdir(ROOT / "docker")

    def put(name, answers=0, builds=0, says=""):
        script = f'[ "$1" = build ] || {{ echo "{says}" >&2; exit {answers}; }}\n'
        script += f'echo "$PWD" "$@" > {tmp_path}/said\nexit {builds}\n'
        (programs / name).write_text(f"#!/bin/sh\n{script}")
        (programs / name).chmod(0o755)
        return tmp_path / "said"

    return put


@pytest.mark.parametrize("engine", COMMANDS)
def test_each_engine_is_called_at_the_root_with_the_command_that_is_shown(put_engine_on_path, engine):
    calls = put_engine_on_path(engine)
    assert LocalImages(Config(version="v7")).build("serve") == "recbandits/serve:v7"
    assert calls.read_text().split() == [str(ROOT), *COMMANDS[engine]]
    assert LocalImages(Config(version="v7")).command("serve", engine) == [engine, *COMMANDS[engine]]


def test_an_engine_that_does_not_work_is_passed_over(put_engine_on_path):
    put_engine_on_path("docker", answers=1)
    calls = put_engine_on_path("buildah")
    LocalImages(Config(version="v7")).build("serve", base="localhost/python")
    assert calls.read_text().split()[1:] == [*COMMANDS["buildah"][:6], "--build-arg", "BASE=localhost/python", *OPTIONS]


def test_podman_under_the_name_of_docker_gets_the_options_of_podman(put_engine_on_path):
    put_engine_on_path("docker", says="Emulate Docker CLI using Podman.")
    calls = put_engine_on_path("podman")
    LocalImages(Config(version="v7")).build("serve")
    assert calls.read_text().split()[1:] == COMMANDS["podman"]


def test_a_build_that_fails_and_a_machine_without_an_engine_get_a_sentence(put_engine_on_path):
    with pytest.raises(PlatformError, match="install docker, podman or buildah and see that `docker version`"):
        LocalImages(Config()).build("train")
    put_engine_on_path("podman", builds=125)
    with pytest.raises(PlatformError, match="image train could not be built: podman ended with exit code 125"):
        LocalImages(Config()).build("train")


def test_pip_in_a_build_has_the_settings_of_this_machine(put_engine_on_path, monkeypatch, tmp_path):
    """A company's index and its certificate; Docker has no option for that."""
    settings, certificate = tmp_path / "pip.conf", tmp_path / "company.pem"
    settings.write_text(f"[global]\ncert = {certificate}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    mounts = ["--volume", f"{settings}:/etc/pip.conf:ro", "--volume", f"{certificate}:{certificate}:ro"]
    command = LocalImages(Config()).command("serve", "buildah")
    assert command[command.index("--layers") + 1 :][:4] == mounts
    assert "--volume" not in LocalImages(Config()).command("serve")
