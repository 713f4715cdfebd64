"""Code, tests, notebooks and pages use the terms of the field."""

import ast
import re
from pathlib import Path

from tools.links import markdown_files
from tools.notebooks import ROOT, find_notebooks, markdown, read

BANNED = dict(line.split(" => ") for line in Path(__file__).with_name("banned_words.txt").read_text().splitlines()[1:])
PATTERNS = {re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.I): BANNED[words] for words in BANNED}
TEXTS = [*markdown_files(ROOT), *find_notebooks()]
FOLDERS = ("src", "playground", "tools", "benchmarks", "site")
CODE = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
TESTS = {*(ROOT / "tests").rglob("*.py"), *(ROOT / "04-pipelines").rglob("*.py")} - {Path(__file__)}
FILES = [*CODE, *TESTS, *TEXTS]


def prose(path):
    """Return the text of a file; of a notebook that of its cells, without outputs."""
    if path.suffix == ".ipynb":
        return "\n\n".join(cell.source for cell in read(path).cells)
    return path.read_text(encoding="utf-8")


def banned(text):
    """Return (word, what to write instead) of each banned word in a text."""
    return [(match.group(), instead) for pattern, instead in PATTERNS.items() for match in pattern.finditer(text)]


def test_no_banned_word_is_used():
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"00-env-setup.ipynb", "README.md", "learning/agents.md", "src/recbandits/serving/server.py"} <= names
    assert {str(path): words for path in FILES if (words := banned(prose(path)))} == {}


def test_a_banned_word_is_found_in_prose_and_in_names_and_other_words_are_left_alone():
    for text in ("the luck of the draw", "def luck(x)", "self._luck = 1", "Nobody knows", "ROOMS"):
        assert len(banned(text)) == 1, text
    assert banned("plucked, bedroom, household, a threshold, untold") == []


def test_no_docstring_opens_with_a_question_word():
    """It says what a function does or what a value is."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [
        (str(path), ast.get_docstring(node) or "")
        for path in {*CODE, *TESTS}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented)
    ]
    assert [found for found in docstrings if re.match(r"(What|How|Which|Whether|Whatever|That)\b", found[1])] == []


def test_no_variable_has_one_of_the_names_that_say_nothing():
    named = {
        (str(path), node.id)
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id in ("told", "found", "asked", "begun", "place")
    }
    assert named == set()


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
