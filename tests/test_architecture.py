"""The map for contributors shows the layers of the package as they are."""

import re
from pathlib import Path

from tests.test_repository_package import LAYERS, MODULES, PACKAGE, imported_layers, layer

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
DRAWN = {
    (name, target)
    for name, targets in re.findall(r"^ +(\w+) --> ([\w &]+)$", PAGE, re.M)
    for target in targets.split(" & ")
}


def imports():
    """Pairs (layer, layer it imports from) of the package."""
    return {(layer(path), target) for path in MODULES for target in imported_layers(path) if target != layer(path)}


def reachable(start, arrows):
    """Layers that a path of arrows leads to."""
    targets = {target for name, target in arrows if name == start}
    return targets.union(*(reachable(target, arrows) for target in targets))


def test_every_drawn_arrow_is_an_import():
    assert DRAWN - imports() == set()


def test_every_import_follows_from_the_drawn_arrows():
    assert {(name, target) for name, target in imports() if target not in reachable(name, DRAWN)} == set()


def test_no_arrow_follows_from_the_others():
    assert {arrow for arrow in DRAWN if arrow[1] in reachable(arrow[0], DRAWN - {arrow})} == set()


def test_every_layer_is_described_in_the_table():
    assert [name for name in LAYERS if not re.search(rf"^\|.*`{name}`.*\|.*\|.*\|$", PAGE, re.M)] == []


def test_every_file_and_module_it_names_exists():
    files = set(re.findall(r"`((?:[a-z_]+/)[a-z_/]+\.py|tests/[a-z_/.]+)`", PAGE))
    modules = set(re.findall(r"\b((?:serving|loop)\.[a-z_]+)\b", PAGE))
    assert min(len(files), len(modules)) > 1
    assert [name for name in files if not (PACKAGE / name).exists() and not (PACKAGE.parents[1] / name).exists()] == []
    assert [name for name in modules if not (PACKAGE / f"{name.replace('.', '/')}.py").exists()] == []
