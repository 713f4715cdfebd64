"""Continuous integration is pinned and audits the locks; SECURITY.md names tests that exist."""

import re

import pytest
import yaml

from tools.lock import FILES, ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = [
    (name, path)
    for names, path in re.findall(r"((?:`test_\w+`(?:, )?)+) in \[[\w.]+\]\(([\w/.]+)\)", SECURITY)
    for name in re.findall(r"test_\w+", names)
]


def unpinned(text):
    """Return the actions of a workflow that are not pinned by a commit with its version beside it."""
    actions = re.findall(r"uses: *(.+)", text)
    return [action for action in actions if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action)]


def test_actions_are_pinned_by_commit():
    assert len(WORKFLOWS) > 0
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        assert "uses: actions/checkout@" in text, path
        assert unpinned(text) == [], path


@pytest.mark.parametrize("action", ["actions/checkout@v4", "actions/checkout@11bd719  # v4.2.2", "./local"])
def test_an_action_that_is_not_pinned_is_found(action):
    assert unpinned(f"- uses: {action}\n") == [action]


def test_workflows_may_only_read():
    assert all(
        yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"} for path in WORKFLOWS
    )


def test_the_weekly_run_audits_every_package_of_the_locks():
    """The sets of the images are parts of the lock; the GPU's is what the lock lacks. Pins differ between Pythons."""
    audit = CI["jobs"]["audit"]
    assert audit["strategy"]["matrix"]["python"] == CI["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert audit["if"] == "github.event_name == 'schedule'"
    assert {"cron": "0 3 * * 1"} in CI[True]["schedule"]  # YAML reads `on` as True
    command = audit["steps"][-1]["run"]
    assert re.findall(r"-r (\S+)", command) == ["requirements.txt", "requirements/gpu.txt"]
    assert {"requirements.txt", "requirements/gpu.txt"} <= set(FILES)
    assert {"--strict", "--require-hashes"} <= set(command.split())
    (version,) = re.findall(r"pip-audit==(\S+)", command)
    assert f"uvx pip-audit=={version} --strict" in SECURITY


def test_what_a_run_left_is_searched_for_secrets_before_it_is_uploaded():
    steps = [step.get("run") or step["uses"].partition("@")[0] for step in CI["jobs"]["test"]["steps"]]
    run, search, upload = steps[-3:]
    assert run.startswith("make run")
    assert search == ".venv/bin/python -m tools.find_secrets build"
    assert upload == "actions/upload-artifact"


def test_the_tests_that_the_page_on_security_names_exist():
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for _, path in NAMED}
    assert [name for name, path in NAMED if not re.search(rf"^ *def {name}\(", texts[path], flags=re.M)] == []


def test_each_threat_has_a_test():
    rows = SECURITY.partition("## Threats")[2].partition("\n## ")[0].strip().splitlines()[4:]
    assert len(rows) >= 14
    assert [row for row in rows if "`test_" not in row.split(" | ")[-1]] == []
    assert len(NAMED) == len(re.findall(r"`test_\w+`", SECURITY))
