"""Predictions for a file: every line is answered, or recorded with the reason of the refusal."""

import json

import pytest

from recbandits.serving import policy, predictor
from recbandits.serving.schemas import Instance, Prediction


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_good_lines_are_answered_in_order_and_bad_ones_named(exported, tmp_path):
    source = tmp_path / "in.jsonl"
    instances = [{"user_id": user, "k": 2, "seed": user} for user in range(1, 31)]
    texts = [json.dumps(each).encode() for each in instances]
    texts[3:3] = [b"", b"{", b'{"user": 3}', b'{"candidates": [999]}', b"\xff", b'{"user_id": 1}, {"user_id": 2}']
    source.write_bytes(b"\n".join(texts))
    results = predictor.batch_predict(exported[0], source, tmp_path / "out.jsonl")
    assert (results.answered, results.refused) == (30, 5)
    predictions = lines(results.predictions)
    assert [each["instance"] for each in predictions] == instances
    loaded = policy.load(exported[0])
    for each in predictions:
        expected = loaded.recommend(k=2, rng=each["instance"]["seed"])
        assert Prediction.model_validate(each["prediction"]).item_ids == expected.item_ids
    refusals = lines(results.refusals)
    assert [each["line"] for each in refusals] == [5, 6, 7, 8, 9]
    assert [each["error"][:25] for each in refusals] == [
        "the body must be JSON: EO",
        "user is not known, did yo",
        "unknown item ids: 999; de",
        "the body must be JSON: ex",
        "the body must be JSON: tr",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.errors"]


def test_a_number_that_may_have_been_rounded_is_no_id(exported, tmp_path):
    """2^53 + 1 as a double is 2^53: another user. As text it is an id; 7.0 is 7, as Vertex AI writes it."""
    source, rounded = tmp_path / "in.jsonl", "must be text, because a number of 2^53 or more may have been rounded"
    ids = ["9007199254740993.0", "9007199254740993", '"9007199254740993"', "7.0"]
    source.write_text("".join(f'{{"user_id": {number}}}\n' for number in ids))
    results = predictor.batch_predict(exported[0], source, tmp_path / "out.jsonl")
    assert [each["instance"]["user_id"] for each in lines(results.predictions)] == ["9007199254740993", 7.0]
    assert [each["error"] for each in lines(results.refusals)] == [
        f"user_id {rounded}, got 9007199254740992.0",
        f"user_id {rounded}, got 9007199254740993",
    ]


@pytest.mark.parametrize("line", ['{"user_id": 9007199254740993}', '{"candidates": [1, -9007199254740992]}'])
def test_a_line_with_a_number_that_vertex_ai_would_round_is_refused(line):
    with pytest.raises(ValueError, match=r"must be text, because a number of 2\^53 or more may have been rounded"):
        Instance.parse(line)
    assert Instance.parse(b'{"new_items": {"9007199254740993": {}}}').new_items == {"9007199254740993": {}}


@pytest.mark.parametrize(("source", "destination"), [("in", "in"), ("in", "./in"), ("in.errors", "in")])
def test_a_batch_that_would_replace_its_source_is_refused(exported, tmp_path, source, destination):
    (tmp_path / source).write_text("{}\n")
    sentence = rf"^destination must be another file than source, .*, .*/{source}, got '.*/{destination}'$"
    with pytest.raises(ValueError, match=sentence):
        predictor.batch_predict(exported[0], tmp_path / source, f"{tmp_path}/{destination}")
    assert (tmp_path / source).read_text() == "{}\n"


def test_a_batch_without_a_policy_is_refused(tmp_path):
    (tmp_path / "in.jsonl").write_text("{}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there is no policy in"):
        predictor.batch_predict(tmp_path / "empty", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match="there is nothing at"):
        predictor.batch_predict(tmp_path / "none", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
