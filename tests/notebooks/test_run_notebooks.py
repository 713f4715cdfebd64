"""The headless runner names the notebooks that failed, and leaves no process behind."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys

import nbformat
import psutil
import pytest

from tests.waiting import until
from tools.lock import ROOT
from tools.notebooks import find_notebooks, read
from tools.run_notebooks import run_one

PICTURE = """from recbandits.plots.style import figure
with figure(3, 2) as (picture, axes):
    axes.plot([1, 2])
picture"""

# Starts a process, writes down both process ids, and hangs as long as a file `slow` lies beside the notebook.
HANG = """import os, pathlib, subprocess, time
child = subprocess.Popen(["sleep", "600"])
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
while pathlib.Path("slow").exists():
    time.sleep(0.05)
child.kill()
child.wait()
print("done")"""


def start(repository, *arguments):
    """Start `make run` in a repository, without make."""
    command = [sys.executable, "-m", "tools.run_notebooks", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=repository, **pipes)


def run(repository, *arguments):
    """Return exit code, standard output and standard error."""
    process = start(repository, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def new_repository(folder):
    """Copy the tools into a folder; their forkserver does not import TensorFlow, which no notebook here needs."""
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tools" / "warm.py").write_text("import tools.execute\n")
    return folder


@pytest.fixture
def hanging(tmp_path, write_notebook):
    """A repository with one notebook that hangs until the file `slow` is removed."""
    write_notebook(tmp_path / "00-hang.ipynb", HANG)
    (tmp_path / "slow").touch()
    return new_repository(tmp_path)


def pids(repository):
    """The processes of the hanging notebook, once they are there: the kernel and what it started."""
    until((repository / "pids").exists, seconds=120)
    until((repository / "pids").read_text)
    return [int(pid) for pid in (repository / "pids").read_text().split()]


def is_alive(pid):
    """Return whether a process is there and is no zombie; it may end while this looks."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def all_gone(processes):
    """Return whether all processes have ended, or are zombies."""
    return not any(map(is_alive, processes))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, write_notebook):
    """A repository with notebooks of every outcome, after a run, with its exit code and output."""
    folder = new_repository(tmp_path_factory.mktemp("mixed"))
    write_notebook(folder / "00-good.ipynb", PICTURE, "print('hello')")
    write_notebook(folder / "01-a" / "01a-error.ipynb", "rate = 0", "\n1 / rate")
    write_notebook(folder / "01-a" / "01b-no-metric.ipynb", "1 + 1", record=False)
    write_notebook(folder / "01-a" / "01c-nothing.ipynb", "x = 1", record=False)
    write_notebook(folder / "02-a" / "02a-dead.ipynb", "import os", "os._exit(3)")
    write_notebook(folder / "02-a" / "02b-deaf.ipynb", "PROFILE = 'quick'")
    return folder, *run(folder, "--profile", "full")


def test_what_failed_is_named_with_cell_and_error_and_the_exit_code_says_so(mixed):
    _, code, _, err = mixed
    assert code == 1
    assert "01a-error failed in code cell 3 ('1 / rate'): ZeroDivisionError: division by zero\n" in err
    assert "01b-no-metric recorded no metric" in err
    assert "01c-nothing finished without a single output" in err
    assert re.search("02a-dead ended with exit code 1 before its last cell: .*Kernel died", err)
    assert "02b-deaf recorded metrics of the profile 'quick' instead of 'full'" in err
    assert err.endswith("5 of 6 notebooks failed: 01a-error, 01b-no-metric, 01c-nothing, 02a-dead, 02b-deaf\n")


def test_the_summary_has_each_notebook_with_its_metrics(mixed):
    _, _, out, _ = mixed
    assert re.search(r"^00-good +passed +\d+\.\d s\n +answer +42$", out, flags=re.M)
    assert re.search(r"^01a-error +FAILED +\d+\.\d s$", out, flags=re.M)


def test_executed_copies_and_html_are_left_behind(mixed):
    copy = mixed[0] / "build" / "notebooks" / "01-a" / "01a-error.ipynb"
    assert any(output.output_type == "error" for cell in read(copy).cells for output in cell.get("outputs", []))
    assert "ZeroDivisionError" in copy.with_suffix(".html").read_text()
    assert "hello" in (mixed[0] / "build" / "notebooks" / "00-good.html").read_text()


def test_metrics_stay_in_the_build_directory(mixed):
    folder = mixed[0]
    record = json.loads((folder / "build" / "runs" / "00-good" / "artifacts" / "metrics" / "00-good.json").read_text())
    assert (record["metrics"], record["profile"]) == ({"answer": 42}, "full")
    assert sorted(path.name for path in folder.iterdir()) == ["00-good.ipynb", "01-a", "02-a", "build", "tools"]


def test_the_index_page_stands_alone_with_picture_metrics_and_problems(mixed):
    page = (mixed[0] / "build" / "index.html").read_text()
    assert page.count("<article") == 6
    assert len(re.findall(r'<img src="data:image/png;base64,iVBORw0KGgo', page)) == 1
    assert "<td>answer</td><td>42</td>" in page
    assert "The title of 00-good" in page
    assert "ZeroDivisionError: division by zero" in page
    assert re.findall(r'(?:src|href)="(?!data:|notebooks/)', page) == []
    for link in re.findall(r'href="([^"]+)"', page):
        assert (mixed[0] / "build" / link).exists()


def test_a_notebook_that_hangs_is_killed_at_the_limit_with_all_that_it_started(hanging):
    result = run_one(hanging / "00-hang.ipynb", hanging / "copy.ipynb", "quick", hanging / "build", limit=15)
    assert result.problem == "was killed after 15 seconds, in code cell 2 ('import os, pathlib, subprocess, time')"
    assert result.seconds < 60  # with the imports before them
    until(lambda: all_gone(pids(hanging)), seconds=5)


def test_the_solution_of_an_exercise_continues_the_notebook(write_notebook, tmp_path):
    """Without `solutions` a wrong one does no harm."""
    source = write_notebook(new_repository(tmp_path) / "00-exercise.ipynb", "answer = 42\nanswer")
    notebook, results = read(source), []
    for solution, solutions in (("assert answer == 42", True), ("assert answer == 41", True), (None, False)):
        if solution:
            text = f"Is it 42?\n\n<details><summary>Solution</summary>\n\n```python\n{solution}\n```\n\n</details>"
            cells = [*notebook.cells, nbformat.v4.new_markdown_cell(text)]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
        results.append(run_one(source, tmp_path / "copy.ipynb", "quick", tmp_path / "build", 60, solutions))
    problem = "failed in code cell 4 ('assert answer == 41'): AssertionError: "
    assert [result.problem for result in results] == ["", problem, ""]
    assert results[2].notebook.cells[-1].cell_type == "markdown"


def test_a_notebook_does_not_read_what_its_last_run_left(write_notebook, tmp_path):
    code = "from recbandits.config import Config\nfile = Config.load().artifacts_dir / 'result'\n"
    code += "assert not file.exists()\nfile.parent.mkdir(parents=True, exist_ok=True)\nfile.touch()\nfile.name"
    source = write_notebook(tmp_path / "00-once.ipynb", code)
    results = [run_one(source, tmp_path / "copy.ipynb", "quick", tmp_path / "build", limit=60) for _ in range(2)]
    assert [result.problem for result in results] == ["", ""]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_and_the_next_one_works(hanging, number):
    process = start(hanging)
    processes = [*pids(hanging), *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in err
    until(lambda: all_gone(processes), seconds=5)
    (hanging / "slow").unlink()
    code, out, err = run(hanging)
    assert (code, err) == (0, "")
    assert re.search("00-hang +passed", out)


def test_a_second_run_at_the_same_time_is_refused_and_harms_nothing(hanging):
    first = start(hanging)
    running = pids(hanging)
    code, out, err = run(hanging)
    assert (code, out) == (1, "")
    assert err == f"Another run (process {first.pid}) is at work in build/: wait until it is done.\n"
    assert not all_gone(running)
    (hanging / "slow").unlink()
    _, err = first.communicate(timeout=60)
    assert (first.returncode, err) == (0, "")


def test_what_a_notebook_leaves_running_is_ended_with_it(tmp_path, write_notebook):
    code = "import pathlib, subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n"
    code += "pathlib.Path('pids').write_text(str(child.pid))\ntime.sleep(0.5)"
    source = write_notebook(tmp_path / "00-leak.ipynb", code)
    assert run_one(source, tmp_path / "copy.ipynb", "quick", tmp_path / "build", limit=60).seconds < 60
    until(lambda: all_gone(pids(tmp_path)), seconds=5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "huge"], "PROFILE must be 'quick' or 'full', got 'huge'\n"),
        (["--notebooks", "07*"], "NOTEBOOKS='07*' matches no notebook; there are: 00-hang\n"),
    ],
)
def test_a_wrong_choice_is_refused_before_anything_runs(hanging, arguments, sentence):
    assert run(hanging, *arguments) == (1, "", sentence)
    assert not (hanging / "build").exists()


def test_notebooks_are_found_in_order_and_chosen_by_path_or_name(tmp_path, write_notebook):
    names = ["00-b", "00-a", "04-x/01-s/01-late", "01-x/01b", "01-x/01a", "01-x/.ipynb_checkpoints/01a", "other/09"]
    names += ["out", "01-x/Untitled"]  # of papermill and of JupyterLab
    for name in names:
        write_notebook(tmp_path / f"{name}.ipynb")

    def found(pattern):
        return [path.stem for path in find_notebooks(tmp_path, pattern)]

    assert found("*") == ["00-a", "00-b", "01a", "01b", "01-late"]
    assert found("01*") == ["01a", "01b"]
    assert found("01-l* 00-b") == ["00-b", "01-late"]
