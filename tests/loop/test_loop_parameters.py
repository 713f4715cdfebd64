"""Configuration and settings as parameters of a template, and the directories that a step derives from them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from recbandits.agents.parameters import LinUCB
from recbandits.config import Config
from recbandits.loop.models import config_parameter, models_of, models_uri, platform_of
from recbandits.loop.settings import Gate, Settings, settings_from
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.warehouse import Join


def test_settings_survive_json():
    settings = replace(Settings(STARS), agent=LinUCB(tikhonov=3.0), gate=Gate(margin=0.5), rate=7.0)
    assert settings_from(json.loads(json.dumps(asdict(settings)))) == settings
    clicks = Join(window=60.0, lowest=0.0, highest=1.0, default=0.0, take="max")
    assert settings_from({"join": asdict(clicks), "gate": {"margin": 0.5}}) == Settings(clicks, gate=Gate(margin=0.5))


def test_settings_without_the_rule_for_rewards_are_refused():
    """No range of rewards is assumed: with 1 to 5 stars, every decision without a click would be quarantined."""
    with pytest.raises(ValueError, match="settings must be a dict with `join`, the rule for rewards, got"):
        settings_from({"rate": 7})


def test_a_local_step_finds_the_directory_that_its_pipeline_was_started_from(tmp_path, monkeypatch):
    """The configuration has "artifacts", relative to its file; the step runs in another directory."""
    Config(artifacts="artifacts").write(tmp_path / "recbandits.toml")
    parameter = config_parameter(Config.load(tmp_path / "recbandits.toml"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    platform = platform_of(parameter)
    assert (platform.name, platform.config.artifacts_dir) == ("local", tmp_path / "artifacts")
    assert models_of(platform.config) == Path(models_uri(platform.config))


def test_a_step_on_google_cloud_finds_buckets_as_directories():
    """No parameter depends on the machine that started the pipeline, so that all machines share the cache."""
    config = Config(platform="gcp", project="movie-lab-42", artifacts="/home/user/artifacts")
    parameter = config_parameter(config)
    assert "artifacts" not in parameter
    assert platform_of(parameter).config.bucket == config.bucket == "movie-lab-42-recbandits-v1"
    assert models_uri(config) == "gs://movie-lab-42-recbandits-v1/models"
    assert models_of(platform_of(parameter).config) == Path("/gcs/movie-lab-42-recbandits-v1/models")
