"""Policy directories: sealed, described, and refused when anything in them has changed."""

import json
import random
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tf_agents.trajectories import time_step as ts

from recbandits.agents.factory import make_agent
from recbandits.data import Features
from recbandits.serving import manifest, policy
from recbandits.serving.policy import Exploration, TrainingSummary
from recbandits.training.offline import Specs

SUMMARY = TrainingSummary(
    data="invented ratings, 300 rows",
    agent="LinUCB",
    parameters={"alpha": 0.1, "layers": (64, 32)},
    metrics={"value": (4.2, 4.1, 4.3), "MSE": 0.84},
    limits=("It has never met a user.",),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    context, items = pd.DataFrame({"activity": [0.5, 1.5]}), pd.DataFrame({"year": [1.5, 2.0]}, ["a", "b"])
    features = Features.fit(items, context)
    agent = make_agent("linucb", Specs(features.spec(2)))
    agent.model.theta.assign([[0.5, 1.0, 2.0]])
    exploration, titles = Exploration("softmax", 0.25), pd.Series({"a": "Été", "b": "煎茶"})
    directory = tmp_path_factory.mktemp("policies") / "policy"
    return policy.export(agent.policy, directory, features, exploration=exploration, titles=titles, summary=SUMMARY)


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def names(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_all_that_was_exported_comes_back_and_a_copy_is_the_same_version(exported, copy):
    loaded = policy.load(copy)
    assert loaded.summary == SUMMARY
    assert loaded.exploration == Exploration("softmax", 0.25)
    assert loaded.candidates.tolist() == ["a", "b"]
    assert loaded.recommend(candidates=["b", "a"], k=2, rng=0).titles in (["Été", "煎茶"], ["煎茶", "Été"])
    assert len(loaded.version) == 16
    assert loaded.version == policy.load(exported).version == policy.describe(copy)["version"]


def test_the_same_policy_exported_again_has_the_same_version_and_another_has_not(tmp_path):
    """TensorFlow numbers the functions of the second graph differently; the digests of the two seals say so."""
    seals = {}
    for name, theta in {"first": 1.0, "again": 1.0, "other": 2.0}.items():
        agent = make_agent("linucb", Specs({"global": (1,), "per_arm": (2, 1)}))
        agent.model.theta.assign([[theta, 2.0]])
        seals[name] = manifest.read(policy.export(agent.policy, tmp_path / name))[0]
    assert seals["first"]["digest"] != seals["again"]["digest"]
    assert seals["first"]["version"] == seals["again"]["version"] != seals["other"]["version"]
    other_directory = policy.export(agent.policy, tmp_path / "other", exploration=Exploration("softmax", 1.0))
    assert policy.load(other_directory).version != seals["other"]["version"]


def test_a_flipped_bit_in_any_file_is_noticed(copy):
    for name in names(copy):
        content = (copy / name).read_bytes()
        middle = len(content) // 2
        (copy / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(ValueError, match="policy copy is damaged"):
            policy.load(copy)
        (copy / name).write_bytes(content)
    assert policy.load(copy).recommend().propensity < 1


def test_a_missing_file_is_noticed_and_named(copy):
    for name in names(copy):
        content = (copy / name).read_bytes()
        (copy / name).unlink()
        sentence = "it has no policy.json" if name == "policy.json" else f"policy copy is incomplete, it has no {name}"
        with pytest.raises(ValueError, match=sentence):
            policy.load(copy)
        (copy / name).write_bytes(content)


def test_a_file_more_is_noticed_and_named(copy):
    (copy / "variables/notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"must hold nothing else, copy has variables/notes\.txt"):
        policy.load(copy)
    (copy / "variables/notes.txt").unlink()
    (copy / "elsewhere").symlink_to(copy.parent)
    with pytest.raises(ValueError, match="must hold nothing else, copy has elsewhere"):
        policy.load(copy)


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_bit_of_the_seal_can_be_flipped(exported, position, bit, tmp_path_factory):
    content = bytearray((exported / "policy.json").read_bytes())
    content[position % len(content)] ^= 1 << bit
    directory = tmp_path_factory.mktemp("flipped")
    (directory / "policy.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"must be the directory of an exported policy|is damaged|has format"):
        policy.load(directory)


@pytest.mark.parametrize("text", ["", '{"what": "recbandits', "[" * 100_000])
def test_a_seal_that_is_truncated_or_nested_too_deep_is_damage(copy, text):
    (copy / "policy.json").write_text(text)
    with pytest.raises(ValueError, match=r"policy copy is damaged, policy\.json cannot be read"):
        policy.load(copy)


def test_a_seal_of_any_depth_is_refused_with_a_message(copy):
    """Some can be read, and not be written again to be compared."""
    for depth in range(800, 1050):
        (copy / "policy.json").write_text(
            '{"what": "recbandits policy", "format": 2, "x": %s}' % ("[" * depth + "]" * depth)
        )
        with pytest.raises(ValueError, match=r"^policy copy (is damaged|cannot be read)"):
            policy.load(copy)


@pytest.mark.parametrize("name", ["policy.json", "scorer.npz"])
def test_a_file_that_cannot_be_read_is_refused(copy, name):
    """The system refuses to read the file behind the link."""
    (copy / name).unlink()
    (copy / name).symlink_to("/proc/self/mem")
    with pytest.raises(ValueError, match=r"^policy copy cannot be read: "):
        policy.load(copy)


def test_another_format_is_refused_by_its_number(copy):
    content = json.loads((copy / "policy.json").read_text(encoding="utf-8"))
    (copy / "policy.json").write_text(json.dumps(content | {"format": 1}))
    with pytest.raises(ValueError, match="policy copy has format 1, this version of recbandits reads format 2"):
        policy.load(copy)


def test_what_is_no_policy_is_refused(tmp_path):
    foreign = tf.Module()
    foreign.answer = tf.Variable(42)
    tf.saved_model.save(foreign, str(tmp_path / "foreign"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/policy.json").write_text('{"rules": []}')
    for name, sentence in {
        "foreign": r"foreign must be the directory of an exported policy, it has no policy\.json",
        "other": r"other must be the directory of an exported policy, its policy\.json is of something else",
        "missing": r"missing must be the directory of an exported policy, it has no policy\.json",
    }.items():
        for read in (policy.load, policy.describe):
            with pytest.raises(ValueError, match=sentence):
                read(tmp_path / name)


def test_arrays_that_would_run_code_are_not_read(copy):
    """Sealed anew, as by an attacker: NumPy refuses objects, because they can be programs."""
    settings, _ = manifest.read(copy)
    np.savez(copy / "scorer.npz", join=np.array([print], object))
    content = {name: settings[name] for name in ("scorer", "exploration", "arms", "items", "titles", "summary")}
    manifest.seal(copy, content)
    with pytest.raises(ValueError, match="allow_pickle"):
        policy.load(copy)


ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    1e308,
    "",
    "a\nb",
    "greedy",
    "x" * 5000,
    [],
    [[]],
    ["a", "a"],
    [None],
    {},
    {"a": {}},
]


def mutate_manifest(content, rng):
    """A manifest with one thing changed somewhere: replaced, removed, or added."""
    content = json.loads(json.dumps(content))
    node, key = content, rng.choice(list(content))
    while isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
        node = node[key]
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
    kind = rng.randrange(4)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice(["x", "", "../a", "saved_model.pb", "value"])] = rng.choice(ODD)
    else:
        node[key] = rng.choice(ODD)
    return content


@pytest.mark.parametrize("sealed", [True, False])
def test_200_mutated_manifests_get_a_sentence_each_or_are_served(copy, sealed):
    """Sealed anew, as by an attacker, some are policies: with another title, or exploration."""
    rng, num_served, sentences = random.Random(int(sealed)), 0, set()
    content = json.loads((copy / "policy.json").read_text())
    content |= {"titles": {"101": "one"}, "summary": {"data": "d", "agent": "a", "metrics": {"m": [1, 0, 2]}}}
    digest = content.pop("digest")
    for _ in range(200):
        changed = mutate_manifest(content, rng)
        try:
            text = manifest._text(changed | {"digest": manifest._digest(changed) if sealed else digest})
        except ValueError:  # no JSON
            continue
        (copy / "policy.json").write_text(text)
        try:
            loaded = policy.load(copy)
            policy.describe(copy)
        except ValueError as error:
            sentences.add(str(error))
        else:
            num_served += 1
            assert loaded.recommend(candidates=loaded.candidates[:2]).propensity > 0
    assert [each for each in sentences if "\n" in each or not 10 < len(each) < 500] == []
    assert len(sentences) > (30 if sealed else 3)
    assert (10 < num_served < 150) if sealed else num_served == 0


@pytest.mark.parametrize("name", ["scorer.npz", "features.npz"])
def test_arrays_that_do_not_fit_get_a_sentence(copy, name):
    """Each array in turn is missing, of text, of another size, or infinite; sealed anew."""
    settings, _ = manifest.read(copy)
    content = {key: settings[key] for key in policy._SETTINGS}
    with np.load(copy / name) as arrays:
        arrays = dict(arrays)
    for key, array in arrays.items():
        floats = array.dtype.kind == "f"
        for other in (
            None,
            np.array("text"),
            array[..., :-1] if array.ndim else np.zeros(3),
            np.full_like(array, np.inf) if floats else np.zeros(2),
        ):
            np.savez(
                copy / name, **({k: v for k, v in arrays.items() if k != key} | ({} if other is None else {key: other}))
            )
            manifest.seal(copy, content)
            with pytest.raises(ValueError, match=r"^policy copy cannot be served: .{10,300}$"):
                policy.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": np.array("sine")}, "activation of the scorer must be one of relu, elu, got 'sine'"),
        ({"head_0_kernel": np.ones((2, 1), int)}, "arrays of the scorer must be floats, got 'int64'"),
    ],
)
def test_a_scorer_of_another_kind_is_refused_before_the_first_request(copy, change, message):
    """It would give finite scores, or be asked for its activation when a policy without features answers."""
    settings, _ = manifest.read(copy)
    with np.load(copy / "scorer.npz") as arrays:
        np.savez(copy / "scorer.npz", **(dict(arrays) | change))
    manifest.seal(copy, {name: settings[name] for name in policy._SETTINGS})
    with pytest.raises(ValueError, match=message):
        policy.load(copy)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("arms", ["a", "a"], "ids that are all different, or null"),
        ("scorer", 1, "true or false"),
        ("items", 1.5, "a whole number, or null"),
        ("titles", {"101": 5}, "texts by id"),
        ("exploration", {"name": "softmax"}, "the name and the value of a method"),
    ],
)
def test_a_seal_that_does_not_describe_a_policy_is_refused_by_its_field(copy, name, value, expected):
    settings, _ = manifest.read(copy)
    manifest.seal(copy, {each: settings[each] for each in policy._SETTINGS} | {name: value})
    with pytest.raises(ValueError, match=f"^policy copy: {name} must be {expected}, got "):
        policy.load(copy)


def test_a_policy_that_was_replaced_is_not_mixed_with_its_successor(copy):
    old = policy.load(copy)
    agent = make_agent("linucb", Specs({"global": (1,), "per_arm": (2, 1)}))
    policy.export(agent.policy, copy)
    assert policy.load(copy).version != old.version
    assert old.recommend().policy_version == old.version
    with pytest.raises(ValueError, match="policy copy was replaced after it was loaded, load it again"):
        old.action(ts.restart({"global": tf.zeros([1, 1]), "per_arm": tf.zeros([1, 2, 1])}, 1))


def test_a_policy_is_described(exported):
    description = policy.describe(exported)
    assert description.name == "policy"
    assert description.drop("version").to_dict() == {
        "agent": "LinUCB",
        "data": "invented ratings, 300 rows",
        "exploration": "softmax, 0.25",
        "arms": "any item with features",
        "knows": "2 items",
        "value": "4.2 (4.1 to 4.3)",
        "MSE": "0.84",
    }


def test_the_model_card_says_what_was_recorded(exported):
    card = (exported / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("# Model card: LinUCB\n")
    for line in (
        "Trained on invented ratings, 300 rows.",
        "It knows 2 items by their ids",
        "policy.recommend({",
        "| alpha | 0.1 |",
        "| layers | 64, 32 |",
        "| value | 4.2 | 4.1 to 4.3 |",
        "| MSE | 0.84 | not computed |",
        "- It has never met a user.",
        "The first slot is drawn with probability proportional to exp(score / 0.25).",
    ):
        assert line in card


def test_a_model_card_without_a_summary_admits_it(tmp_path):
    agent = make_agent("linucb", Specs({"global": (1,), "per_arm": (2, 1)}))
    directory = policy.export(agent.policy, tmp_path / "policy")
    card = (directory / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Nothing was recorded when this policy was exported." in card
    assert "Not measured." in card
    assert "with propensity 1" in card
    assert "It reads observations, not ids: it was exported without its features." in card
    assert policy.describe(directory)["agent"] == "not recorded"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metrics": {"mse": float("nan")}}, "metric 'mse' must be a finite number, or"),
        ({"metrics": {"mse": (1.0, 2.0, 3.0)}}, r"in order, got \(1.0, 2.0, 3.0\)"),
        ({"metrics": {"mse": "good"}}, "metric 'mse' must be a finite number"),
        ({"parameters": {"network": object}}, "parameters must be what JSON can hold"),
    ],
)
def test_summaries_that_say_nothing_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingSummary(data="none", agent="none", **values)
