"""The configuration: accepted settings, derived names, and its file."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbandits.__main__ import describe_configuration
from recbandits.config import SETTINGS, VARIABLES, Config
from tests import commands

PREFIXES = st.from_regex(r"[a-z](-?[a-z0-9]){0,8}", fullmatch=True).filter(lambda text: not text.startswith("goog"))
# "~name" is the directory of a user, whom this machine may not have; "~" and "~/name" are of the user who runs it.
ARTIFACTS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
ARTIFACTS = ARTIFACTS.filter(lambda text: "://" not in text and not re.match("~[^/]", text))
CONFIGS = st.builds(
    Config,
    platform=st.sampled_from(["local", "gcp"]),
    project=st.from_regex(r"[a-f][a-f0-9-]{4,28}[a-f0-9]", fullmatch=True),
    region=st.sampled_from(["us-central1", "europe-west4", "northamerica-northeast2"]),
    prefix=PREFIXES,
    version=st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True),
    artifacts=ARTIFACTS,
)


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    """An empty working directory and no RECBANDITS_ variable."""
    for name in ("CONFIG", *(setting.upper() for setting in SETTINGS)):
        monkeypatch.delenv(f"RECBANDITS_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


@settings(deadline=None)
@given(config=CONFIGS)
def test_a_written_configuration_is_read_back(tmp_path_factory, config):
    file = config.write(tmp_path_factory.mktemp("folder") / "file.toml")
    assert Config.load(file) == config
    assert [item.name for item in file.parent.iterdir()] == ["file.toml"]


@settings(deadline=None)
@given(config=CONFIGS)
def test_every_derived_name_is_valid_in_the_cloud(config):
    """The rules as each service documents them, independent of those in Config."""
    rules = {
        config.bucket: r"(?!goog)(?!.*google)[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]",
        config.dataset: r"[A-Za-z0-9_]{1,1024}",
        config.registry: r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?",
        config.endpoint: r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?",
        config.topic("interactions"): r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}",
        config.account("function").partition("@")[0]: r"[a-z](?:[-a-z0-9]{4,28}[a-z0-9])",
        config.image("train"): r"[a-z0-9-]+-docker\.pkg\.dev/[a-z0-9-]+/[a-z0-9]+(?:-[a-z0-9]+)*/train:\w[\w.-]{0,127}",
    }
    for name, rule in rules.items():
        assert re.fullmatch(rule, name), f"{name} breaks {rule}"
    for key, value in config.labels.items():
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key)
        assert re.fullmatch(r"[a-z0-9_-]{0,63}", value)


def test_names_derive_from_prefix_and_version():
    config = Config(platform="gcp", project="movie-lab-42", region="europe-west4", prefix="team-a", version="v2")
    assert config.bucket == "movie-lab-42-team-a-v2"
    assert config.dataset == "team_a_v2"
    assert config.image("train") == "europe-west4-docker.pkg.dev/movie-lab-42/team-a-v2/train:v2"
    assert config.topic("interactions") == "team-a-v2-interactions"
    assert config.endpoint == "team-a-v2"
    assert config.account("serve") == "team-a-v2-se@movie-lab-42.iam.gserviceaccount.com"
    assert config.labels == {"app": "recbandits", "prefix": "team-a", "version": "v2"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"platform": "aws"}, "platform must be 'local' or 'gcp', got 'aws'"),
        ({"platform": "gcp"}, "project must be set when platform is 'gcp'"),
        ({"platform": "gcp", "project": "My_Project"}, "project must be a Google Cloud project id .* got 'My_Project'"),
        ({"project": "short"}, "project must be"),
        ({"project": "ends-with-hyphen-"}, "project must be"),
        ({"project": "a-google-project"}, "project must not resemble 'google'"),
        ({"prefix": "googol"}, "prefix must not resemble 'google'"),
        ({"region": "us-central1-a"}, "region must be a Google Cloud region .* got 'us-central1-a'"),
        ({"region": "US"}, "region must be"),
        ({"prefix": ""}, "prefix must be 1 to 18 .* got ''"),
        ({"prefix": "a--b"}, "prefix must be"),
        ({"prefix": "a" * 19}, "prefix must be"),
        ({"prefix": "ab\n"}, "prefix must be"),
        ({"version": "v1.0"}, "version must be 1 to 8 .* got 'v1.0'"),
        ({"version": 2}, "version must be .* got 2"),
        ({"artifacts": ""}, "artifacts must be a directory on this machine, got ''"),
        ({"platform": ["local"]}, r"platform must be 'local' or 'gcp', got \['local'\]"),
        ({"artifacts": "~no-such-user/x"}, "artifacts must be a directory on this machine, got '~no-such-user/x'"),
        ({"artifacts": "gs://bucket/run"}, "artifacts must be a directory on this machine"),
    ],
)
def test_an_invalid_setting_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config(**settings)


@pytest.mark.parametrize("name", ["", "a_B", "x" * 64])
def test_image_and_topic_names_are_checked(name):
    config = Config(project="movie-lab-42")
    for derive in (config.image, config.topic):
        with pytest.raises(ValueError, match="name must be at most 63"):
            derive(name)


def test_names_that_carry_the_project_need_one():
    config = Config()
    with pytest.raises(ValueError, match="bucket needs a project"):
        config.bucket  # noqa: B018
    with pytest.raises(ValueError, match="image needs a project"):
        config.image("train")


def test_an_unknown_key_is_refused_by_name_with_the_nearest_known_one(tmp_path):
    file = tmp_path / "recbandits.toml"
    file.write_text('projct = "movie-lab-42"\n')
    with pytest.raises(ValueError, match=r"recbandits\.toml has an unknown key 'projct': did you mean 'project'\?"):
        Config.load()
    file.write_text("folder = '/'\n")
    with pytest.raises(ValueError, match="unknown key 'folder': known keys are platform, project, region, prefix"):
        Config.load()


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    (tmp_path / "recbandits.toml").write_text("platform: local\n")
    with pytest.raises(ValueError, match=r"recbandits\.toml is not valid TOML"):
        Config.load()


def test_a_given_file_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.toml"):
        Config.load(tmp_path / "missing.toml")


def test_the_file_is_the_argument_then_the_variable_then_the_nearest_folder(tmp_path, monkeypatch):
    Config(prefix="parent").write(tmp_path / "recbandits.toml")
    Config(prefix="variable").write(tmp_path / "other" / "mine.toml")
    Config(prefix="argument").write(tmp_path / "argument.toml")
    inner = tmp_path / "01-notebooks" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert Config.load().prefix == "parent"
    assert Config.load().artifacts_dir == tmp_path / "artifacts"
    monkeypatch.setenv("RECBANDITS_CONFIG", str(tmp_path / "other" / "mine.toml"))
    assert Config.load().prefix == "variable"
    assert Config.load().artifacts_dir == tmp_path / "other" / "artifacts"
    assert Config.load(tmp_path / "argument.toml").prefix == "argument"


def test_load_reads_the_file_that_write_has_written(tmp_path, monkeypatch):
    assert Config(prefix="here").write().resolve() == tmp_path / "recbandits.toml"
    assert Config.load().prefix == "here"
    monkeypatch.setenv("RECBANDITS_CONFIG", str(tmp_path / "build" / "run.toml"))
    assert Config.load() == Config()
    Config(prefix="there").write()
    assert Config.load().prefix == "there"
    assert Config.load().artifacts_dir == tmp_path / "build" / "artifacts"


def test_an_empty_variable_counts_as_not_set(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBANDITS_CONFIG", "")
    assert Config.load() == Config()
    assert Config.load().artifacts_dir == tmp_path / "artifacts"
    assert Config(prefix="found").write().resolve() == tmp_path / "recbandits.toml"
    assert Config.load().prefix == "found"


@pytest.mark.parametrize("name", ["RECBANDITS_CONFIG", "path"])
def test_a_directory_is_refused_as_file(tmp_path, monkeypatch, name):
    path = tmp_path if name == "path" else None
    monkeypatch.setenv("RECBANDITS_CONFIG", str(tmp_path))
    for use in (Config.load, Config().write):
        with pytest.raises(ValueError, match=rf"{name}.* must be a TOML file, got the directory {tmp_path}$"):
            use(path)
    assert list(tmp_path.iterdir()) == []


def test_the_environment_overrides_a_setting(monkeypatch):
    Config(prefix="file", version="v3").write()
    monkeypatch.setenv("RECBANDITS_PREFIX", "environment")
    assert (Config.load().prefix, Config.load().version) == ("environment", "v3")
    monkeypatch.setenv("RECBANDITS_PREFIX", "No Good")
    with pytest.raises(ValueError, match="prefix must be"):
        Config.load()


def test_each_role_has_an_account_of_its_own():
    config = Config(platform="gcp", project="movie-lab-42")
    assert len({config.account(role) for role in ("train", "serve", "function", "build")}) == 4
    with pytest.raises(ValueError, match="role must be one of train, serve, function, build, got 'owner'"):
        config.account("owner")


def test_the_report_names_the_file_that_is_not_there_and_variables_that_nothing_reads(tmp_path, monkeypatch):
    assert dict(describe_configuration())["configuration"] == "defaults, because there is no recbandits.toml"
    monkeypatch.setenv("RECBANDITS_CONFIG", f"{tmp_path}/mine.toml")
    monkeypatch.setenv("RECBANDITS_PREFX", "lab")
    monkeypatch.setenv("RECBANDITS_QQ", "1")
    rows = list(describe_configuration())
    assert dict(rows)["configuration"] == f"defaults, because there is no {tmp_path}/mine.toml"
    first, second = [text for name, text in rows if name == "variable"]
    assert first == "RECBANDITS_PREFX is unknown: did you mean 'RECBANDITS_PREFIX'?"
    assert second.startswith("RECBANDITS_QQ is unknown: known variables are RECBANDITS_PLATFORM, RECBANDITS_PROJECT,")


def test_every_variable_in_the_code_and_in_the_images_is_known():
    root = Path(__file__).parents[1]
    files = [*(root / "src").rglob("*.py"), root / "docker" / "Dockerfile"]
    names = {name for file in files for name in re.findall(r"RECBANDITS_[A-Z_]*[A-Z]", file.read_text("utf-8"))}
    assert names <= set(VARIABLES)
    assert {name.removeprefix("RECBANDITS_").lower() for name in set(VARIABLES) - names} <= set(SETTINGS)


def test_the_report_has_help_and_refuses_arguments():
    assert commands.run(sys.executable, "-m", "recbandits", "--help").startswith("usage: python -m recbandits [-h]")
    ended = subprocess.run([sys.executable, "-m", "recbandits", "--bogus"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "unrecognized arguments: --bogus" in ended.stderr
