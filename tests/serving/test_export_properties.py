"""An exported policy loads and scores the same; the export refuses a policy that could not be read again."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, reject, settings
from hypothesis import strategies as st

from recbandits.data import Features
from recbandits.serving import policy, saved_model
from recbandits.serving.policy import Exploration, TrainingSummary
from recbandits.serving.scorer import Scorer, linear_head

WHOLE = st.integers(-(2**70), 2**70)
TEXTS = st.text(max_size=4) | st.sampled_from(["煎茶", "a | b", "Earl’s", "0", "a\0", " "])
IDS = st.lists(WHOLE | TEXTS.filter(bool), min_size=1, max_size=5, unique_by=str)
NUMBERS = st.floats(-100, 100, width=32)
COLUMNS = st.sampled_from([NUMBERS, st.integers(-9, 9), st.booleans(), TEXTS, st.none() | TEXTS, st.none() | NUMBERS])


class Linear(SimpleNamespace):
    """A policy of TF-Agents without TensorFlow: what `export` asks of one, with a head of given weights."""

    def scorer(self):
        return Scorer("concat", "relu", (), (), (linear_head([self.theta]),))


@st.composite
def tables(draw, ids, names):
    """Raw columns, each of any type that a column may have."""
    columns = {name: draw(st.lists(draw(COLUMNS), min_size=len(ids), max_size=len(ids))) for name in names}
    return pd.DataFrame(columns, pd.Index(ids, dtype=object))


ODD_IDS = IDS.map(lambda ids: ids[0]) | st.sampled_from([np.int32(3), 3.0, 2.5, "", True, None, 2**63])
ODD_TEXTS = st.text(max_size=3) | st.sampled_from(["\ud800", None, 7, float("nan"), "煎茶", "a | b", "Earl’s"])


def refusal(trained_policy, spec, directory, features, **options):
    """Export without a SavedModel, which has no part in scoring by ids; return the sentence of a refusal, or None."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "observation_spec", lambda _: spec)
        patch.setattr(saved_model, "write", lambda *arguments: Path(arguments[-1]).mkdir())
        try:
            policy.export(trained_policy, directory, features, **options)
        except ValueError as error:
            return str(error)
    return None


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    ids=IDS,
    titles=st.none() | st.dictionaries(ODD_IDS, ODD_TEXTS, max_size=2),
    exploration=st.sampled_from([None, Exploration("softmax", np.float32(0.3)), Exploration("epsilon_greedy", 1)]),
)
def test_what_can_be_exported_loads_and_scores_the_same(tmp_path_factory, data, ids, titles, exploration):
    context, items = data.draw(tables([0, 1, 2], ["request", "煎"])), data.draw(tables(ids, ["item"]))
    try:
        features = Features.fit(items, context, data.draw(st.sampled_from([(), [("request", "item")]])))
    except ValueError:  # such as a column without any value
        reject()
    spec = {name: SimpleNamespace(shape=shape) for name, shape in features.spec(2).items()}
    size = spec["global"].shape[-1] + spec["per_arm"].shape[-1]
    theta = np.array(data.draw(st.lists(NUMBERS, min_size=size, max_size=size)), np.float32)
    trained_policy = Linear(theta=theta, action_spec=SimpleNamespace(maximum=1))
    directory = tmp_path_factory.mktemp("policies") / "policy"
    sentence = refusal(trained_policy, spec, directory, features, exploration=exploration, titles=titles)
    if sentence is not None:
        assert titles, sentence
        assert "\n" not in sentence
        assert not directory.exists()
        return
    loaded = policy.load(directory)
    encoded = features.context_encoder.encode(context)
    per_arm = features.per_arm(encoded, np.broadcast_to(features.items, (3, *features.items.shape)))
    expected = np.concatenate([np.repeat(features.context(encoded)[:, None], len(ids), axis=1), per_arm], axis=2)
    expected = expected.astype(float) @ theta.astype(float)
    np.testing.assert_allclose(loaded.scores(context), expected, rtol=1e-5, atol=1e-3)
    answer = loaded.recommend(context.iloc[0], k=len(ids), user_id=ids[0])
    assert sorted(answer.item_ids) == sorted(map(str, ids))
    positions = [answer.candidates.index(name) for name in answer.item_ids]
    np.testing.assert_allclose(answer.scores, expected[0, positions], rtol=1e-5, atol=1e-3)
    titles_by_id = {str(item): title for item, title in (titles or {}).items()}
    assert answer.titles == [titles_by_id.get(name, name) for name in answer.item_ids]
    record = answer.interaction(datetime.now(UTC))
    assert record.candidates == tuple(map(str, ids))
    scores = loaded.scores(pd.DataFrame([json.loads(record.context)]))
    np.testing.assert_allclose(scores, expected[:1], rtol=1e-5, atol=1e-3)
    event("exported")


@pytest.mark.parametrize(
    ("titles", "sentence"),
    [
        ({"": "A"}, "id of a title must be text or a whole number, got ''"),
        (pd.Series({1.0: "A"}), "id of a title must be text or a whole number, got 1.0"),
        ({"1": "A", 1: "B"}, "titles must be one for each item, got '1'"),
        ({1: None}, "title of item 1 must be text, got None"),
        ({1: "\ud800"}, "title of item 1 must be text, got "),
    ],
)
def test_titles_that_could_not_be_read_again_are_refused(titles, sentence):
    with pytest.raises(ValueError, match=sentence):
        policy.read_titles(titles)


@pytest.mark.parametrize(
    "values",
    [{"data": None}, {"limits": "one"}, {"limits": (3,)}, {"metrics": {1: 0.5}}],
)
def test_a_summary_that_no_model_card_could_show_is_refused(values):
    with pytest.raises(ValueError, match="must be"):
        TrainingSummary(**{"data": "ratings", "agent": "LinUCB"} | values)
