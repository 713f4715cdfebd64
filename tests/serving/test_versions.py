"""Policies and releases that a server finds at AIP_STORAGE_URI."""

import json
import shutil

import pytest

from recbandits.serving import policy, versions
from recbandits.serving.predictor import BanditPredictor
from recbandits.serving.schemas import Instance, Parameters
from recbandits.serving.versions import TrafficSplit
from tests import waiting
from tests.forks import run_unprivileged
from tests.recorder import Recorder


@pytest.fixture
def release(exported, tmp_path):
    """A directory with a release of two versions, and their names."""
    names = []
    for directory in exported[:2]:
        names.append(policy.load(directory).version)
        shutil.copytree(directory, tmp_path / "release" / "policies" / names[-1])
    document = {"shares": {names[0]: 80, names[1]: 20}, "previous": {names[0]: 100}}
    (tmp_path / "release" / "release.json").write_text(json.dumps(document))
    return tmp_path / "release", names


def test_a_policy_alone_answers_everybody(exported):
    deployment = versions.find(exported[2])
    assert deployment.release == TrafficSplit({policy.load(exported[2]).version: 100})
    recommendation = deployment.recommend(Instance(user_id=7), Parameters())
    assert round(recommendation.scores[0] / 100) == 3


def test_a_release_answers_with_the_versions_that_it_names(release):
    directory, names = release
    deployment = versions.find(str(directory))
    assert deployment.release == TrafficSplit({names[0]: 80, names[1]: 20}, previous={names[0]: 100})
    for user in range(1, 31):
        recommendation = deployment.recommend(Instance(user_id=user), Parameters())
        assert (
            recommendation.policy_version == deployment.release.version(str(user)) == deployment.release.version(user)
        )
        assert round(recommendation.scores[0] / 100) == 1 + names.index(recommendation.policy_version)


def test_requests_without_a_user_are_split_by_the_shares_and_not_all_alike(release):
    """80 to 20 of 400: 320 give or take four standard errors of 8. A seed always gets the same version."""
    deployment, names = versions.find(release[0]), release[1]
    answers = [deployment.recommend(Instance(context={}), Parameters()) for _ in range(400)]
    assert abs([answer.policy_version for answer in answers].count(names[0]) - 320) < 32
    assert {answer.user_id for answer in answers} == {None}
    seeded = [deployment.recommend(Instance(seed=3), Parameters()) for _ in range(20)]
    assert len({answer.policy_version for answer in seeded}) == 1


def test_nothing_yet_is_no_error_and_nothing_there_is_one(tmp_path):
    """The version that was undeployed last leaves an empty folder of policies; a writer that is killed, its draft."""
    assert versions.find(None) is versions.find("") is versions.find(tmp_path) is None
    (tmp_path / "policies").mkdir()
    (tmp_path / ".release.json.k3x").mkdir()
    assert versions.find(tmp_path) is None
    with pytest.raises(ValueError, match="there is nothing at"):
        versions.find(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be the directory of an exported policy"):
        versions.find(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", r"release\.json cannot be read: Expecting property name"),
        ("[" * 100_000, r"release\.json cannot be read: maximum recursion depth"),
        ("[]", r"release\.json cannot be read: a release must be an object with 'shares', and .*, got \[\]"),
        ('{"previous": null}', "cannot be read: a release must be an object with 'shares'"),
        ('{"shares": {"a": 100}, "x": 1}', "cannot be read: a release must be an object with 'shares'"),
        ('{"shares": {"a": 50}}', r"release\.json cannot be read: shares must add up to 100, got 50"),
        ('{"shares": {"0000000000000000": 100}}', "there is nothing at .*/policies/0000000000000000"),
        ('{"shares": {"../policies": 100}}', "version must be 16 hexadecimal digits, got '../policies'"),
    ],
    ids=range(8),
)
def test_a_release_that_cannot_be_served_is_refused(release, text, sentence):
    directory, _ = release
    (directory / "release.json").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        versions.find(directory)


def test_a_release_that_cannot_be_read_is_refused(release):
    """The system refuses to read the file behind the link."""
    directory, _ = release
    (directory / "release.json").unlink()
    (directory / "release.json").symlink_to("/proc/self/mem")
    with pytest.raises(ValueError, match=r"release\.json cannot be read: "):
        versions.find(directory)


@pytest.mark.parametrize(("folder", "mode"), [("", 0o111), ("policies", 0)])
def test_a_folder_of_another_user_is_refused_with_what_is_expected_of_it(release, open_folder, folder, mode):
    """Its files may be found, but not listed, or neither."""
    directory, names = release[0].rename(open_folder / "release"), release[1]
    (directory / "release.json").unlink()
    (directory / folder).chmod(mode)

    def find():
        with pytest.raises(ValueError, match=f"^{directory}.* cannot be read: Permission denied: it must be readable"):
            versions.serve(directory, TrafficSplit({names[0]: 100}), {}) if folder else versions.find(directory)
        return "refused"

    assert run_unprivileged(find) == "refused"
    (directory / folder).chmod(0o700)


def test_a_policy_under_the_name_of_another_is_refused(release):
    directory, names = release
    (directory / "policies" / names[0]).rename(directory / "policies" / "0123456789abcdef")
    with pytest.raises(ValueError, match=f"0123456789abcdef must be 0123456789abcdef, got '{names[0]}'"):
        versions.serve(directory, TrafficSplit({"0123456789abcdef": 100}), {})


def test_what_is_served_already_is_not_loaded_again(release):
    directory, names = release
    before = versions.find(directory)
    shutil.rmtree(directory / "policies")
    after = versions.serve(directory, TrafficSplit({names[1]: 100}), before.policies)
    assert after.policies == {names[1]: before.policies[names[1]]}


def test_a_release_in_a_bucket_is_the_same(release):
    directory, names = release
    with Recorder() as cloud:
        for file in directory.rglob("*"):
            if file.is_file():
                cloud.objects[f"gs://b/models/1/{file.relative_to(directory).as_posix()}"] = file.read_bytes()
        deployment = versions.find("gs://b/models/1")
        assert deployment.release == versions.read(directory)
        assert sorted(deployment.policies) == sorted(names)
        restored = versions.serve("gs://b/models/1", TrafficSplit({names[0]: 100}), {})
        assert list(restored.policies) == [names[0]]
        with pytest.raises(ValueError, match="there is nothing at gs://b/models/1/policies/0000000000000000"):
            versions.serve("gs://b/models/1", TrafficSplit({"0" * 16: 100}), {})
        with pytest.raises(ValueError, match="there is nothing at gs://b/models/2"):
            versions.find("gs://b/models/2")


def test_a_predictor_follows_the_release_that_it_was_given_and_keeps_it_while_there_is_no_good_one(
    release, monkeypatch, caplog
):
    """Of AIP_STORAGE_URI, a copy that never changes, nothing is read; a new version comes with its policy."""
    directory, names = release
    monkeypatch.setenv("RECBANDITS_RELEASE", str(directory))
    predictor = BanditPredictor()
    predictor.load("/nowhere")
    assert predictor.release.shares == {names[0]: 80, names[1]: 20}
    (directory / "release.json").write_text(json.dumps({"shares": {names[1]: 100}}))
    predictor.refresh()
    assert predictor.release.shares == {names[1]: 100}
    for text in ("{", json.dumps({"shares": {"0" * 16: 100}})):
        (directory / "release.json").write_text(text)
        predictor.refresh()
        assert predictor.release.shares == {names[1]: 100}
    assert f"cannot be served: there is nothing at {directory}/policies/0000000000000000" in caplog.text
    (directory / "release.json").unlink()
    predictor.refresh()
    assert predictor.release.shares == {names[1]: 100}


def test_a_predictor_looks_at_its_release_again_and_again(release, monkeypatch):
    directory, names = release
    monkeypatch.setenv("RECBANDITS_RELEASE", str(directory))
    monkeypatch.setattr("recbandits.serving.predictor.RELEASE_INTERVAL", 0.01)
    predictor = BanditPredictor()
    predictor.load("/nowhere")
    (directory / "release.draft").write_text(json.dumps({"shares": {names[0]: 100}}))
    (directory / "release.draft").rename(directory / "release.json")
    waiting.until(lambda: predictor.release.shares == {names[0]: 100})


def test_a_refused_instance_gets_its_sentence_where_the_parameters_ask_for_it(exported):
    predictor = BanditPredictor()
    predictor.load(exported[0])
    body = {"instances": [{"candidates": ["999"]}, {"user_id": "7"}], "parameters": {"answer_refusals": True}}
    answer = json.loads(predictor.postprocess(predictor.predict(predictor.preprocess(json.dumps(body).encode()))))
    refusal, prediction = answer["predictions"]
    assert list(refusal) == ["error"]
    assert refusal["error"].startswith("unknown item ids: 999")
    assert prediction["policy_version"] == predictor.release.version("7")
    with pytest.raises(ValueError, match=r"instances\[0\]: unknown item ids: 999"):
        predictor.predict(predictor.preprocess(json.dumps({"instances": body["instances"]}).encode()))
