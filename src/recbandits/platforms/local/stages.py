"""What the instructions of a Dockerfile do, done in plain directories."""

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template


@dataclass
class Stage:
    """What is known of an image after some of its steps.

    Attributes:
      tree: directory that stands for its file system.
      base: the image that the first stage begins with.
      workdir: absolute path in the image.
      user: as whom it runs.
      home: that user's directory.
      environment: dict of its variables.
      ports: those that it declares.
      health: command that looks whether it is well, list of words.
      entrypoint: what it runs, list of words.
      command: arguments that can be replaced, list of words.
    """

    tree: Path
    base: str
    workdir: str = "/"
    user: str = "0"
    home: str = "/"
    environment: dict = field(default_factory=dict)
    ports: tuple = ()
    health: list = field(default_factory=list)
    entrypoint: list = field(default_factory=list)
    command: list = field(default_factory=list)

    def place(self, path):
        """Where a path of the image, absolute or from its working directory, is on this machine."""
        return self.tree / os.path.join(self.workdir, path).lstrip("/")


class Builder:
    """One method for each kind of instruction; `stage` is what has come of them."""

    def __init__(self, folder, python):
        self.log = folder / "log.txt"
        self.stage = None
        self._folder = folder
        self._python = python
        self._stages = {}
        self._arguments = {}

    def do_arg(self, value):
        """Give a variable of the Dockerfile its default."""
        name, _, default = value.partition("=")
        self._arguments[name] = default

    def do_from(self, value):
        """Begin a stage, with nothing or where an earlier one ended."""
        base, _, name = self._filled(value).partition(" AS ")
        tree = self._folder / f"stage-{len(self._stages)}"
        if base in self._stages:
            shutil.copytree(self._stages[base].tree, tree, symlinks=True)
            self.stage = replace(self._stages[base], tree=tree, environment=dict(self._stages[base].environment))
        else:
            tree.mkdir()
            self.stage = Stage(tree, base)
        self._stages[name or "last"] = self.stage

    def do_workdir(self, value):
        """Change to a directory, and make it."""
        self.stage.workdir = os.path.join(self.stage.workdir, self._filled(value))
        self.stage.place(".").mkdir(parents=True, exist_ok=True)

    def do_env(self, value):
        """Set variables, `NAME=value` each."""
        self.stage.environment |= dict(word.split("=", 1) for word in shlex.split(self._filled(value)))

    def do_user(self, value):
        """Change the user."""
        self.stage.user = self._filled(value)

    def do_expose(self, value):
        """Declare ports."""
        self.stage.ports = (*self.stage.ports, *value.split())

    def do_healthcheck(self, value):
        """Keep the command, in exec form."""
        self.stage.health = json.loads(value.partition("CMD ")[2])

    def do_entrypoint(self, value):
        """Keep what is run, in exec form."""
        self.stage.entrypoint = json.loads(value)

    def do_cmd(self, value):
        """Keep the arguments, in exec form."""
        self.stage.command = json.loads(value)

    def do_copy(self, value):
        """Copy files or the content of directories, from the build context or from an earlier stage."""
        words = shlex.split(self._filled(value))
        flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
        *sources, target = [word for word in words if not word.startswith("--")]
        root = self._stages[flags["from"]].tree if "from" in flags else self._folder / "context"
        for source in sources:
            _copy(root / source.lstrip("/"), self.stage.place(target), target.endswith("/"))

    def do_run(self, value):
        """Run a command in a shell."""
        program, *words = shlex.split(value)
        if program == "useradd":
            self.stage.home = words[words.index("--home-dir") + 1]
            self.stage.place(self.stage.home).mkdir(parents=True)
            return
        with open(self.log, "a") as log:
            options = {"cwd": self.stage.place("."), "stdout": log, "stderr": log}
            environment = environment_of(self.stage, self._python)
            code = subprocess.run(["/bin/sh", "-c", value], env=environment, **options).returncode
        if code:
            raise ValueError(f"exit code {code}, {last_line(self.log)}")

    def _filled(self, value):
        return Template(value).safe_substitute(self._arguments | (self.stage.environment if self.stage else {}))


def environment_of(stage, python):
    """The variables of a process in the image; of this machine's, only where its libraries are."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    path = os.pathsep.join([str(python.parent), "/usr/local/bin", "/usr/bin", "/bin"])
    return kept | {"PATH": path, "HOME": str(stage.place(stage.home))} | stage.environment


def _copy(source, target, into):
    """Copy a file, or what is in a directory."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        return
    target = target / source.name if into else target
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def last_line(file):
    """The last line of a text file that is not empty."""
    lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing"
