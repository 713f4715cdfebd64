"""Notebooks, pages, and the layers and tests that have their second edition use the terms of the field."""

import re
from pathlib import Path

from tools.links import markdown_files
from tools.notebooks import ROOT, find_notebooks, markdown, read

LAYERS = ["records", "data", "exploration", "evaluation", "environments", "agents", "training", "plots"]
MODULES = ["__init__", "checks", "config", "notebook", "tf"]
BANNED = dict(line.split(" => ") for line in Path(__file__).with_name("banned_words.txt").read_text().splitlines()[1:])
PATTERNS = {re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.I): BANNED[words] for words in BANNED}
TEXTS = [*markdown_files(ROOT), *find_notebooks()]
FILES = [
    *(path for layer in LAYERS for path in (ROOT / "src" / "recbandits" / layer).rglob("*.py")),
    *(path for layer in LAYERS for path in (ROOT / "tests" / layer).rglob("*.py")),
    *(ROOT / "src" / "recbandits" / f"{name}.py" for name in MODULES),
    *TEXTS,
]


def prose(path):
    """Return the text of a file; of a notebook that of its cells, without outputs."""
    if path.suffix == ".ipynb":
        return "\n\n".join(cell.source for cell in read(path).cells)
    return path.read_text(encoding="utf-8")


def banned(text):
    """Return (word, what to write instead) of each banned word in a text."""
    return [(match.group(), instead) for pattern, instead in PATTERNS.items() for match in pattern.finditer(text)]


def test_no_banned_word_is_used():
    """Neither in a notebook nor in a page."""
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"00-env-setup.ipynb", "README.md", "docs/benchmarks.md", "learning/agents.md"} <= names
    assert {str(path): words for path in FILES if (words := banned(prose(path)))} == {}


def test_a_banned_word_is_found_in_prose_and_in_names_and_other_words_are_left_alone():
    for text in ("the luck of the draw", "def luck(x)", "self._luck = 1", "Nobody knows", "ROOMS"):
        assert len(banned(text)) == 1, text
    assert banned("plucked, bedroom, household, a threshold, untold") == []


def sentences(text):
    """List the sentences of a page, without code, tables, headings, badges and costs; a formula counts as one word."""
    text = re.sub(r"```.*?```|<[^>]+>", "", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "x", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text), flags=re.DOTALL)
    blocks = re.split(r"\n\s*\n|\n(?=[-*\d#|] ?)", text)
    kept = [" ".join(block.split()) for block in blocks if not re.match(r"\s*(\||#|!|Open in|\*\*minutes)", block)]
    return [sentence for block in kept for sentence in re.split(r"(?<=[.!?:])[*]*\s+(?=[A-Z`*\[\"(])", block)]


def test_sentences_are_short():
    texts = {path: markdown(read(path)) if path.suffix == ".ipynb" else path.read_text("utf-8") for path in TEXTS}
    long = [sentence for text in texts.values() for sentence in sentences(text) if len(sentence.split()) > 25]
    assert long == []


def test_a_sentence_ends_with_its_stop_or_paragraph():
    text = "# A title\n\nOne $x + y$. **Two** [three](four)\n- five\n\n| a | b |"
    assert sentences(text) == ["One x.", "**Two** three", "- five"]
