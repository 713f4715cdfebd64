"""docs/licences.md lists every locked package, with a licence that fits a distribution under Apache-2.0."""

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement

from tools.licences import ELSEWHERE, PAGE, find_licence, find_sets
from tools.lock import ROOT

TEXT = PAGE.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([\w.-]+) \| ([\w.+]+) \| ([^|]+) \| ([\w, -]+) \|$", TEXT, flags=re.M)[1:]
PERMISSIVE = {"Apache-2.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0"}
PERMISSIVE |= {"0BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "LicenseRef-BSD"}
FILE_COPYLEFT = {"certifi", "fqdn", "hypothesis", "pathspec", "tqdm"}  # MPL-2.0, each named on the page


def unfit(rows):
    """Return the names of packages whose licence does not fit."""
    names = []
    for name, _, licence, sets in rows:
        allowed = PERMISSIVE | ({"MPL-2.0"} if name in FILE_COPYLEFT else set())
        allowed |= {"LicenseRef-NVIDIA-Proprietary"} if sets == "gpu" else set()
        if not set(re.split(r" (?:AND|OR) ", licence)) <= allowed:
            names.append(name)
    return names


def test_every_locked_package_is_listed_with_the_files_that_lock_it():
    listed = {
        f"{name}=={version}": sets.replace("environment", "requirements").split(", ") for name, version, _, sets in ROWS
    }
    assert listed == find_sets(), "run python -m tools.licences"


def test_the_page_has_the_licences_of_the_installed_packages():
    wrong = {}
    for name, _, licence, _ in ROWS:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if find_licence(name) != licence:
            wrong[name] = find_licence(name), licence
    assert wrong == {}


def test_packages_that_linux_lacks_are_pinned_for_other_platforms_alone():
    pins = re.findall(r"^(\S+==.*?)(?: \\)?$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), flags=re.M)
    markers = {pin.name: pin.marker for pin in map(Requirement, pins) if pin.name in ELSEWHERE}
    assert markers.keys() == ELSEWHERE.keys()
    assert not any(marker.evaluate({"sys_platform": "linux", "os_name": "posix"}) for marker in markers.values())


def test_every_licence_fits():
    assert unfit(ROWS) == []


def test_packages_under_the_mpl_are_named_in_the_text():
    (names,) = re.findall(r"\*\*MPL-2\.0\*\* \(([^)]+)\)", TEXT)
    assert set(names.split(", ")) == FILE_COPYLEFT == {name for name, _, licence, _ in ROWS if "MPL" in licence}


@pytest.mark.parametrize(
    "licence", ["GPL-3.0-only", "MIT AND AGPL-3.0-or-later", "LicenseRef-NVIDIA-Proprietary", "MPL-2.0"]
)
def test_a_licence_that_does_not_fit_is_found(licence):
    assert unfit([*ROWS, ("other", "1.0", licence, "serve, lab")]) == ["other"]


@pytest.mark.parametrize(
    ("name", "licence"),
    [("pytest", "MIT"), ("tensorflow", "Apache-2.0"), ("numpy", "BSD-3-Clause"), ("tqdm", "MPL-2.0 AND MIT")],
)
def test_licences_come_from_expressions_fields_classifiers_and_texts(name, licence):
    assert find_licence(name) == licence


def test_a_package_without_a_licence_is_refused():
    with pytest.raises(KeyError, match="no-such-package"):
        find_licence("no-such-package")
