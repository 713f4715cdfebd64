"""Print what this installation has, and what to do next: python -m recbandits."""

import argparse
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import recbandits
from recbandits.config import Config, describe_file, describe_unknown_variables
from recbandits.data import download, movielens, open_bandit
from recbandits.notebook import TF_AGENTS

CHECKOUT = Path(recbandits.__file__).parents[2]


def find_missing(package: str, extra: str) -> list[str]:
    """List the packages that an extra of an installed package requires and this environment lacks, sorted."""
    missing = set()
    for each in map(Requirement, metadata.requires(package) or ()):
        if each.marker is None or not each.marker.evaluate({"extra": extra}) or each.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = each.specifier.contains(metadata.version(each.name), prereleases=True)
        except metadata.PackageNotFoundError:
            installed = False
        missing |= (
            set().union(*(find_missing(each.name, nested) for nested in each.extras)) if installed else {each.name}
        )
    return sorted(missing)


def describe_extra(extra: str) -> str:
    """Return "installed", or the packages that are missing and the command that installs them."""
    missing = find_missing("recbandits", extra)
    names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return f'missing {names}: pip install "recbandits[{extra}]"' if missing else "installed"


def describe_tf_agents() -> str:
    """Return the version of TF-Agents, or the command that installs it."""
    try:
        return metadata.version("tf-agents")
    except metadata.PackageNotFoundError:
        return f'missing: pip install "recbandits[tf]", then pip install --no-deps {" ".join(TF_AGENTS)}'


def describe_data(variable: str, pattern: str) -> str:
    """Return where `load` finds a data set: the directory that a variable names, or files in the cache."""
    if named := os.environ.get(variable):
        folder = Path(named).expanduser()
        return f"{folder}, from {variable}" if folder.is_dir() else f"{variable} names {folder}, which is no directory"
    cached = ", ".join(sorted(map(str, download.find_cache(None).glob(pattern))))
    return cached or f"not found; set {variable}, or let it be downloaded; without network a synthetic set stands in"


def describe_configuration() -> Iterator[tuple[str, str]]:
    """Yield the rows on the configuration."""
    yield "configuration", describe_file()
    yield from (("variable", sentence) for sentence in describe_unknown_variables())
    try:
        config = Config.load()
    except ValueError as error:
        yield "platform", f"unknown: {error}"
        return
    yield "platform", f"{config.platform}, files in {config.artifacts_dir}"
    yield "project", f"{config.project} in {config.region}" if config.project else "none; only platform = gcp needs one"


def report() -> Iterator[tuple[str, str]]:
    """Yield the rows (name, text) of the report."""
    yield "recbandits", recbandits.__version__
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield from describe_configuration()
    yield "MovieLens", describe_data(movielens.DIRECTORY_VARIABLE, "ml-*.zip")
    yield "Open Bandit", describe_data(open_bandit.DIRECTORY_VARIABLE, "obp-*.whl")
    yield "TF-Agents", describe_tf_agents()
    for extra in metadata.metadata("recbandits").get_all("Provides-Extra") or ():
        yield f"extra {extra}", describe_extra(extra)
    if (CHECKOUT / "Makefile").exists():
        yield "next", f"in {CHECKOUT}: make run executes the notebooks, make lab opens them, make help lists the rest"
    elif find_missing("recbandits", "tf"):
        yield "next", "help('recbandits.evaluation') describes the estimators; the extra tf adds agents and simulation"
    else:
        yield "next", "help('recbandits.training') describes simulation and training from logs"


def main() -> None:
    """Print the report in aligned lines."""
    argparse.ArgumentParser(prog="python -m recbandits", description=__doc__).parse_args()
    rows = list(report())
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {text}" for name, text in rows))


if __name__ == "__main__":
    main()
