"""Versions agree, the page on releases is true, its commands work, and no name of the last release is missing."""

import importlib
import pkgutil
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import recbandits
from tests.commands import run
from tools.lock import ROOT

PAGE = (ROOT / "docs" / "releases.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
REPOSITORY = PYPROJECT["project"]["urls"]["Repository"]
NAMES = Path(__file__).with_name("public_names.txt")
COPIED = ("src", "pyproject.toml", "README.md", "LICENSE")


def public_names():
    """List the names that the layers of the package export, as "recbandits.layer.name"."""
    layers = [module.name for module in pkgutil.iter_modules(recbandits.__path__) if module.ispkg]
    modules = [importlib.import_module(f"recbandits.{layer}") for layer in layers]
    return sorted(f"{module.__name__}.{name}" for module in modules for name in getattr(module, "__all__", ()))


def row(name):
    """Return the cells of a row of the version matrix, without its name."""
    return re.search(rf"^\| {name} \| (.+) \|$", PAGE, flags=re.M)[1].split(" | ")


def test_one_version_and_one_address_are_everywhere():
    version = PYPROJECT["project"]["version"]
    assert recbandits.__version__ == CITATION["version"] == version
    assert CITATION["repository-code"] == REPOSITORY
    config = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml").read_text(encoding="utf-8"))
    assert config["contact_links"][0]["url"] == f"{REPOSITORY}/security/advisories/new"
    assert PYPROJECT["project"]["license"] == CITATION["license"] == "Apache-2.0"


def test_the_changelog_has_the_form_of_keep_a_changelog():
    headings = re.findall(r"^## (.+)$", CHANGELOG, flags=re.M)
    assert headings[0] == "[Unreleased]"
    assert all(
        re.fullmatch(r"(\[\d+\.\d+\.\d+\]|First edition) - \d{4}-\d\d-\d\d", heading) for heading in headings[1:]
    )
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    unreleased = CHANGELOG.split("\n## ")[1]
    found = re.findall(r"^### (.+)$", unreleased, flags=re.M)
    assert found == [kind for kind in kinds if kind in found]


def test_the_matrix_has_the_pythons_of_continuous_integration_and_of_the_package():
    tested, *_ = row("Python")
    assert tested.split(", ") == CI["jobs"]["test"]["strategy"]["matrix"]["python"]
    allowed = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert [minor for minor in range(8, 20) if f"3.{minor}" in allowed] == [
        int(each[2:]) for each in tested.split(", ")
    ]
    assert CI["jobs"]["test"]["runs-on"] in row("operating system")[0]


def test_the_matrix_has_the_locked_versions():
    lock = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), flags=re.M))
    assert row("TensorFlow")[0] == lock["tensorflow"]
    assert row("TF-Agents")[0] == f"{lock['tf-agents']}, with Gym {lock['gym']} and tf-keras {lock['tf-keras']}"


def test_no_public_name_of_the_last_release_is_missing():
    released = NAMES.read_text(encoding="utf-8").split()
    assert len(released) > 150
    assert set(released) - set(public_names()) == set(), "see the deprecation rule in docs/releases.md"


def test_the_commands_of_a_release_build_a_wheel_that_works_in_an_empty_environment(tmp_path):
    (commands,) = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.M | re.S)
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    script = commands.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    printed, version = run("sh", "-euc", script, cwd=tmp_path), recbandits.__version__
    assert re.match(rf"recbandits +{re.escape(version)}\n", printed)
    assert "missing" in printed
    built = {path.name for path in (tmp_path / "build" / "dist").iterdir() if path.name[0] != "."}
    assert built == {f"recbandits-{version}-py3-none-any.whl", f"recbandits-{version}.tar.gz"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_an_issue_template_is_a_form_of_github(path):
    """Name, description and a body of inputs with ids and labels; at least one of them is required."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "labels", "body"} == form.keys()
    assert all(
        each["type"] in ("input", "textarea") and each["id"] and each["attributes"]["label"] for each in form["body"]
    )
    assert any(each.get("validations", {}).get("required") for each in form["body"])
    assert len({each["id"] for each in form["body"]}) == len(form["body"])


def test_the_citation_has_what_its_format_requires():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= CITATION.keys()
    assert all({"title", "authors", "type", "year"} <= reference.keys() for reference in CITATION["references"])


if __name__ == "__main__":
    NAMES.write_text("\n".join(public_names()) + "\n", encoding="utf-8")
