"""The modules of docs/copy.md work in an empty folder, with the files that the page names and without the package."""

import re
import sys
from pathlib import Path

import pytest

from tests.commands import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "copy.md").read_text(encoding="utf-8")
ROWS = {name.lower(): files for name, files in re.findall(r"^\| \[([^\]]+)\]\([^)]*\) \| ([^|]+) \|", PAGE, re.M)}
FILES = {name: re.findall(r"`([^`]+)`", files) for name, files in ROWS.items()}
EXAMPLES = {
    title.lower(): code for title, code in re.findall(r"^## ([^\n]+)\n.*?^```python\n(.*?)^```", PAGE, re.M | re.S)
}
(COMMAND,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
WITHOUT_PACKAGE = "import sys; sys.modules['recbandits'] = None; exec(open('example.py').read())"


def test_every_row_has_an_example_and_at_most_three_files_and_linucb_four():
    assert FILES.keys() == EXAMPLES.keys()
    assert [name for name, files in FILES.items() if len(files) > (4 if name == "linucb" else 3)] == []


@pytest.mark.parametrize("name", FILES)
def test_a_copied_module_works_alone(name, tmp_path):
    for file in FILES[name]:
        (tmp_path / Path(file).name).write_text((ROOT / "src" / "recbandits" / file).read_text(encoding="utf-8"))
    run("sh", "-c", COMMAND, cwd=tmp_path)
    (tmp_path / "example.py").write_text(EXAMPLES[name])
    run(sys.executable, "-c", WITHOUT_PACKAGE, cwd=tmp_path)
