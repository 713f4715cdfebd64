"""Layers, tests and pages that have their second edition use the terms of the field."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["records", "data", "exploration", "evaluation", "environments", "agents", "training", "plots"]
MODULES = ["__init__", "checks", "config", "notebook", "tf"]
PAGES = ["README.md", "docs/architecture.md", "docs/copy.md"]
BANNED = dict(line.split(" => ") for line in Path(__file__).with_name("banned_words.txt").read_text().splitlines()[1:])
FILES = [
    *(path for layer in LAYERS for path in (ROOT / "src" / "recbandits" / layer).rglob("*.py")),
    *(path for layer in LAYERS for path in (ROOT / "tests" / layer).rglob("*.py")),
    *(ROOT / "src" / "recbandits" / f"{name}.py" for name in MODULES),
    *(ROOT / name for name in PAGES),
]


def banned(text):
    """Return (word, what to write instead) of each banned word in a text."""
    patterns = {
        re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.I): instead for words, instead in BANNED.items()
    }
    return [(match.group(), instead) for pattern, instead in patterns.items() for match in pattern.finditer(text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word_is_used(path):
    assert banned(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("text", ["the luck of the draw", "def luck(x)", "self._luck = 1", "Nobody knows", "ROOMS"])
def test_a_banned_word_is_found_in_prose_and_in_names(text):
    assert len(banned(text)) == 1


@pytest.mark.parametrize("text", ["plucked", "bedroom", "household", "a threshold", "untold"])
def test_other_words_are_left_alone(text):
    assert banned(text) == []
