"""What can be exported loads and scores the same; what could not be read again is refused when it is exported."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbandits.data.features import FeatureBundle
from recbandits.serving import policy, saved_model
from recbandits.serving.policy import Exploration, TrainingSummary
from recbandits.serving.scorer import Scorer, linear_head

WIDE = st.integers(-(2**63), 2**63 - 1)
IDS = st.lists(WIDE, min_size=1, max_size=5, unique=True)
TYPES = st.sampled_from([np.float32, np.float64, np.int8, np.int64, bool, object])
NUMBERS = st.floats(-100, 100, width=32)


class Linear(SimpleNamespace):
    """A policy of TF-Agents without TensorFlow: what `export` asks of one, with a head of given weights."""

    def scorer(self):
        return Scorer("concat", "relu", (), (), (linear_head([self.theta]),))


@st.composite
def tables(draw, count):
    """A table of features by id, of one or two columns of any type that a table of a user may have."""
    ids = draw(IDS)
    kinds = draw(st.lists(TYPES, min_size=count, max_size=count))
    columns = {}
    for number, kind in enumerate(kinds):
        values = draw(
            st.lists(st.booleans() if kind is bool else st.integers(-9, 9), min_size=len(ids), max_size=len(ids))
        )
        columns[f"column {number}"] = np.array(values).astype(kind)
    return pd.DataFrame(columns, ids)


ODD_IDS = WIDE | st.sampled_from([np.int32(3), 3.0, 2.5, "3", "a", True, None, 2**63, 2**70])
ODD_TEXTS = st.text(max_size=3) | st.sampled_from(["\ud800", None, 7, float("nan"), "煎茶", "a | b", "Earl’s"])


def refusal(trained, spec, directory, bundle, **options):
    """Export without a SavedModel, which has no part in scoring by ids; return the sentence of a refusal, or None."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "observation_spec", lambda _: spec)
        patch.setattr(saved_model, "write", lambda *arguments: Path(arguments[-1]).mkdir())
        try:
            policy.export(trained, directory, bundle, **options)
        except ValueError as error:
            return str(error)
    return None


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    users=tables(2),
    items=tables(1),
    titles=st.none() | st.dictionaries(ODD_IDS, ODD_TEXTS, max_size=2),
    exploration=st.sampled_from([None, Exploration("softmax", np.float32(0.3)), Exploration("epsilon_greedy", 1)]),
)
def test_what_can_be_exported_loads_and_scores_the_same(tmp_path_factory, data, users, items, titles, exploration):
    bundle = FeatureBundle(users, items)
    spec = {name: SimpleNamespace(shape=shape) for name, shape in bundle.spec(2).items()}
    theta = np.array(data.draw(st.lists(NUMBERS, min_size=3, max_size=3)), np.float32)
    trained = Linear(theta=theta, action_spec=SimpleNamespace(maximum=1))
    directory = tmp_path_factory.mktemp("policies") / "policy"
    sentence = refusal(trained, spec, directory, bundle, exploration=exploration, titles=titles)
    if sentence is not None:
        assert "\n" not in sentence
        assert not directory.exists()
        return
    loaded = policy.load(directory)
    known = {int(item): title for item, title in (titles or {}).items()}
    observation = bundle.observation(users.index, np.tile(items.index, (len(users), 1)))
    expected = np.concatenate(
        [np.repeat(observation["global"][:, None], len(items), axis=1), observation["per_arm"]], axis=2
    ).astype(float) @ theta.astype(float)
    np.testing.assert_allclose(loaded.scores(users.index), expected, rtol=1e-5, atol=1e-3)
    answer = loaded.recommend(int(users.index[0]), k=len(items))
    assert sorted(answer.item_ids) == sorted(items.index)
    assert answer.titles == [known.get(item) or f"item {item}" for item in answer.item_ids]


@pytest.mark.parametrize(
    ("titles", "sentence"),
    [
        ({"a": "A"}, "id of a title must be a 64-bit whole number, got 'a'"),
        (pd.Series({1.0: "A"}), "id of a title must be a 64-bit whole number, got 1.0"),
        ({1: None}, "title of item 1 must be text, got None"),
        ({1: "\ud800"}, "title of item 1 must be text, got "),
    ],
)
def test_titles_that_could_not_be_read_again_are_refused(titles, sentence):
    """Before, the keys "a" and "1.0" were exported, and the policy could not be loaded."""
    with pytest.raises(ValueError, match=sentence):
        policy.read_titles(titles)


@pytest.mark.parametrize(
    "values",
    [{"data": None}, {"agent": 7}, {"limits": "one"}, {"limits": (3,)}, {"metrics": {1: 0.5}}, {"data": "\ud800"}],
)
def test_a_summary_that_no_model_card_could_show_is_refused(values):
    with pytest.raises(ValueError, match="must be"):
        TrainingSummary(**{"data": "ratings", "agent": "LinUCB"} | values)
