"""Helpers that components and platforms share: parameters that a template can hold, models, and the functions that log.

A component gets the configuration as a parameter: a container of Vertex AI has neither the file nor the environment of
the process that started the pipeline, but it has every bucket as a directory below /gcs.
"""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from recbandits import checks
from recbandits.config import SETTINGS, Config
from recbandits.loop.models import Model, read_model
from recbandits.loop.settings import Settings
from recbandits.platforms.functions import Function
from recbandits.platforms.protocol import Platform
from recbandits.records.fields import TIME
from recbandits.serving.manifest import local_directory
from recbandits.training.job_paths import mounted

if TYPE_CHECKING:
    from recbandits.loop.trigger import Plan

FUNCTIONS = Path(__file__).parent / "functions"  # a directory for each source
LOGGERS = {"interactions": "log_interaction", "rewards": "log_reward"}  # topic: Python name of its function
START_UP = "start-up"  # name of the run of the start-up pipeline
TEMPLATES = Path(__file__).parent / "templates"  # compiled by `loop.pipelines`


def settings_from(values: dict) -> Settings:
    """Make `Settings` of the dict that `dataclasses.asdict` makes; ValueError without `join`, or for a wrong value."""
    checks.require("join" in values, "settings", "a dict with `join`, the rule for rewards", values)
    kinds = get_type_hints(Settings)
    return Settings(**{name: kinds[name](**each) if isinstance(each, dict) else each for name, each in values.items()})


def platform_of(config: dict) -> Platform:
    """Return the platform of a configuration that `config_parameter` has made."""
    from recbandits.platforms import choose

    return choose(Config(**config))


def config_parameter(config: Config) -> dict[str, str]:
    """Return a `Config` as a dict of texts, without the artifacts directory where a step has not got it."""
    settings = {name: getattr(config, name) for name in SETTINGS if name != "artifacts"}
    return settings | ({} if config.platform == "gcp" else {"artifacts": str(config.artifacts_dir)})


def models_uri(config: Config) -> str:
    """Return where the models of a configuration are, by version: a directory, or a gs:// URI."""
    return f"gs://{config.bucket}/models" if config.platform == "gcp" else str(config.artifacts_dir / "policies")


def models_of(config: Config) -> Path:
    """Return the directory of the models of a configuration, by version, as a step sees it."""
    return mounted(models_uri(config))


def serving_model(platform: Platform) -> Model | None:
    """Return the `Model` that serves; None where none does."""
    from recbandits.loop.canary import serving_version  # with SciPy, which most steps do not need

    version = serving_version(platform.endpoints.create())
    if version is None:
        return None
    with local_directory(f"{models_uri(platform.config)}/{version}") as directory:
        return read_model(directory)


def logger_of(topic: str, full_name: str) -> Function:
    """Return the `Function` that logs a topic, given the full name of the topic."""
    return Function(logger_name(topic), FUNCTIONS / "logger", LOGGERS[topic], full_name)


def logger_name(topic: str) -> str:
    """Return the name of the function that logs a topic."""
    return LOGGERS[topic].replace("_", "-")


def time_of(text: str) -> datetime:
    """Return the time that a parameter says, as a datetime in UTC; ValueError without a zone."""
    return TIME.accept("time", datetime.fromisoformat(text))


def start_up_parameters(
    config: Config, settings: Settings, log: str | Path, features: str | Path, topic: str = ""
) -> dict:
    """Return the parameters of the start-up pipeline, dict from input to value; see `re_training_parameters`.

    The directory or gs:// URI `log` has the first decisions and their rewards, as `loop.ingest.write_log` writes
    them; they are some windows old, so that the rewards are there.
    """
    return _learning(config, settings, features, topic) | {"log": str(log)}


def re_training_parameters(
    config: Config, settings: Settings, features: str | Path, plan: "Plan | None" = None, topic: str = ""
) -> dict:
    """Return the parameters of the re-training pipeline, dict from input to value.

    The directory or gs:// URI `features` has the `Features` of the policies, and perhaps `titles.json`. Without a plan
    the run makes one when it begins, as those of a schedule of Vertex AI do. `topic` is the full name of the topic
    where the endpoint is to log; empty for where it does.
    """
    planned = {"start": plan.start.isoformat(), "end": plan.end.isoformat()} if plan else {}
    planned |= {"serving": plan.serving, "snapshot": plan.snapshot} if plan else {}
    gate = {"gate": asdict(settings.gate), "canary": settings.guardrail.canary}
    return _learning(config, settings, features, topic) | gate | planned


def _learning(config, settings, features, topic):
    values = asdict(settings)
    values = {name: values[name] for name in ("join", "holdout", "agent", "exploration", "seed")}
    return {"config": config_parameter(config), "features": str(features), **values, "topic": topic}
