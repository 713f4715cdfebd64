"""The command line of the training job: flags from the fields of dataclasses, and refusals in one sentence."""

from dataclasses import fields

import pytest

from recbandits import training
from recbandits.training import task
from recbandits.training.problems import AGENTS_OF, PROBLEMS, as_text
from tests.commands import run_python


@pytest.mark.parametrize(("command", "agent"), [(command, name) for command in PROBLEMS for name in AGENTS_OF[command]])
def test_every_field_is_a_flag_and_none_is_two(command, agent):
    """A default, written as it is on the command line, comes back with its type."""
    request = task.parse([command, "--agent", agent])
    arguments = [command, f"--agent={agent}"]
    for values in (request.options, request.problem, request.agent):
        names = [field.name for field in fields(values) if field.name != "agents"]
        arguments += [f"--{name}={as_text(getattr(values, name))}" for name in names]
    assert task.parse(arguments) == request
    assert request.agent == AGENTS_OF[command][agent]()


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ("simulate --per_arm", "per_arm", True),
        ("simulate --per_arm=false", "per_arm", False),
        ("simulate --per_arm True --rank 3", "per_arm", True),
        ("simulate --seeds=7", "seeds", (7,)),
        ("fit --seeds 0,1 --epochs=3", "seeds", (0, 1)),
        ("fit --epochs=3.0", "epochs", 3),
        ("fit --decisions=1e3", "decisions", 1000),
        ("fit --serve_epsilon=1", "serve_epsilon", 1.0),
        ("fit --data=gs://bucket/1,2", "data", "gs://bucket/1,2"),
        ("fit --data=1.0", "data", "1.0"),
        ("fit --judge=test --judge=validation", "judge", "validation"),
        ("fit --agent neural_linucb --layers=64.0,32", "layers", (64, 32)),
        ("fit --agent neural_linucb --encoding 8.0", "encoding", 8),
        ("rank --non_click_score -2", "non_click_score", -2.0),
    ],
)
def test_values_have_the_types_of_their_fields(arguments, field, value):
    """Tuning services write whole numbers with a point, and the last of two equal flags counts."""
    request = task.parse(arguments.split())
    (parsed,) = [vars(part)[field] for part in (request.problem, request.agent) if field in vars(part)]
    assert (parsed, type(parsed)) == (value, type(value))
    assert not isinstance(value, tuple) or {type(item) for item in parsed} == {int}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("simulate --alfa=1", "unknown argument '--alfa=1'; did you mean --alpha?"),
        ("rank --judged=100", "unknown argument '--judged=100'; did you mean --judge?"),
        ("simulate extra", "unknown argument 'extra'"),
        ("simulate --alpha=much", "LinUCB: alpha must be 0 or more and finite, got 'much'"),
        ("simulate --alpha=-1", "LinUCB: alpha must be 0 or more and finite, got -1.0"),
        ("simulate --rank=1.5", "Simulation: rank must be a whole number of at least 1, got '1.5'"),
        ("simulate --per_arm=maybe", "Simulation: per_arm must be one of True, False, got 'maybe'"),
        ("simulate --num_actions=1", "Simulation: num_actions must be a whole number of at least 2, got 1"),
        ("fit --seeds=1,1", "Fit: seeds must be different whole numbers from 0 to 2**63 - 1, got (1, 1)"),
        ("fit --seeds=9223372036854775808", "from 0 to 2**63 - 1, got (9223372036854775808,)"),
        ("fit --serve_epsilon=2", "Fit: serve_epsilon must be in [0, 1], got 2.0"),
        ("fit --profile=61", "Options: profile must be seconds from 0 to 60, got 61.0"),
        ("simulate --agent=ranking", "squarecb, neural_linucb, exp3_mixture, got 'ranking'"),
        ("fit --agent=exp3_mixture", "squarecb, neural_linucb, got 'exp3_mixture'"),
        ("learn --agent=exp3_mixture", "squarecb, neural_linucb, got 'exp3_mixture'"),
        ("rank --agent=als_ranking", "one of ranking, cascading_linucb, cascading_lints, got 'als_ranking'"),
        ("rank --temperature=0", "Ranking: temperature must be positive and finite, got 0.0"),
        (
            "rank --policy=cosine_distance",
            "Rank: policy must be no_penalty or descending_scores, got 'cosine_distance'",
        ),
        ("rank --position_bias=base", "Rank: position_bias must be none, as lists are in random order, got 'base'"),
        ("rank --candidates=10", "Rank: candidates must be a whole number of at least 11, got 10"),
        ("", "command must be one of simulate, fit, rank, learn, got ''"),
        ("fit --layers=64 32 --agent=squarecb", "unknown argument '32'"),
        ("simulate --agent=exp3_mixture --agents=linucb", "Exp3Mixture: agents must be two or more LinUCB or LinTS"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as refusal:
        task.main(arguments.split())
    assert refusal.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("recbandits.training.task: ")
    assert sentence in error


def test_without_a_name_the_first_agent_of_the_command_learns():
    names = [task.parse([command]).options.agent for command in ("simulate", "fit", "rank")]
    assert names == ["linucb", "linucb", "ranking"]


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ("--help", ["usage: recbandits.training.task COMMAND", "fit Learn from a log of decisions"]),
        (
            "fit --agent=squarecb --help",
            [
                "usage: recbandits.training.task fit",
                "--gamma FLOAT positive, per unit of the reward",
                "--layers INT,... units of the hidden layers. (default: 64,32)",
                "--judge {validation,test}",
                '"validation" keeps the test split unused',
            ],
        ),
    ],
)
def test_help_has_types_defaults_and_the_texts_of_the_docstrings(arguments, texts, capsys):
    with pytest.raises(SystemExit) as end:
        task.main(arguments.split())
    assert end.value.code == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in texts:
        assert text in printed


def test_help_and_dry_run_do_not_import_tensorflow():
    code = """
import contextlib, sys
from recbandits.training.task import main
main(["fit", "--dry-run"])
with contextlib.suppress(SystemExit):
    main(["fit", "--help"])
print(*sys.modules)"""
    modules = run_python(code).split()
    assert "recbandits.training.problems" in modules
    assert not {"tensorflow", "tf_agents", "pandas", "scipy"} & set(modules)


def test_public_names_are_importable():
    assert all(getattr(training, name) for name in training.__all__)
