"""Container images: which there are, what they may be made of, what their Dockerfile says.

`root` is the root of the repository, a `pathlib.Path`.
"""

import re
from pathlib import Path
from typing import NamedTuple

from recbandits.config import Config
from recbandits.platforms.protocol import PlatformError

DOCKERFILE = "docker/Dockerfile"


class Instruction(NamedTuple):
    """One instruction of a Dockerfile; its value is one line, as it stands."""

    keyword: str
    value: str


def checkout(folder: str | Path = ".") -> Path:
    """Return the root of the repository that a folder is in, where images are built; PlatformError for no checkout."""
    here = Path(folder).resolve()
    for root in (here, *here.parents):
        if (root / "docker").is_dir() and (root / "pyproject.toml").is_file():
            return root
    raise PlatformError(f"images are built from a checkout of the repository, and {here} is not in one")


def targets(root: Path) -> list[str]:
    """Return the names of the images, in the order of the Dockerfile: its stages with a command of their own."""
    stages = {name: {step.keyword for step in steps} for name, steps in _stages(root).items()}
    return [name for name, keywords in stages.items() if name and keywords & {"ENTRYPOINT", "CMD"}]


def check_image(name: str, root: Path) -> None:
    """Raise a `PlatformError` that lists the images, unless `name` is one of them."""
    if name not in (names := targets(root)):
        raise PlatformError(f"there is no image {name!r}: {DOCKERFILE} has {', '.join(names)}")


def image_steps(name: str, root: Path) -> list[Instruction]:
    """Return the `Instruction`s of an image, of its stage and of those that it needs; PlatformError for no image."""
    check_image(name, root)
    stages, needed = _stages(root), {name}
    for stage in reversed(stages):
        if stage in needed:
            text = "\n".join(map(" ".join, stages[stage]))
            needed.update(re.findall("^(?:FROM |COPY --from=)([^ ]+)", text, re.MULTILINE))  # also base images
    return [step for stage, steps in stages.items() if stage in {None, *needed} for step in steps]


def build_options(name: str, uri: str, config: Config) -> list[str]:
    """Return what follows `docker build` at the root of the repository: a list of words.

    The tag of the image is `uri`, and the labels of a `Config` go on it.
    """
    labels = [word for item in config.labels.items() for word in ("--label", "=".join(item))]
    return ["--file", DOCKERFILE, "--target", name, "--tag", uri, *labels, "."]


def context(root: Path) -> list[str]:
    """List the files that .dockerignore lets into an image, by the rules of Docker's own Python library.

    Their paths are sorted, relative to the root, and with slashes.
    """
    from docker.utils import exclude_paths

    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line.strip() and not line.startswith("#")]
    paths = exclude_paths(str(root), patterns)
    return sorted(Path(path).as_posix() for path in paths if (root / path).is_file())


def instructions(text: str) -> list[Instruction]:
    """Split the text of a Dockerfile into its `Instruction`s, keywords in capitals.

    Comments are left out, and continued lines joined.
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    parts = (line.strip().partition(" ") for line in joined.splitlines())
    return [Instruction(keyword.upper(), " ".join(value.split())) for keyword, _, value in parts]


def _stages(root):
    """Return dict from the name of a stage to its `Instruction`s; None names those before the first."""
    stages, stage = {None: []}, None
    for step in instructions((root / DOCKERFILE).read_text(encoding="utf-8")):
        if step.keyword == "FROM":
            stage = step.value.partition(" AS ")[2]
            stages[stage] = []
        stages[stage].append(step)
    return stages
