"""The versions of a policy behind one server, found in a directory or a bucket and verified; predictions for files."""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from recbandits import checks
from recbandits.serving import policy
from recbandits.serving.decisions import Recommendation
from recbandits.serving.manifest import local_directory, read_bytes
from recbandits.serving.schemas import Instance, Parameters, Prediction
from recbandits.serving.served import ServedPolicy
from recbandits.serving.traffic_split import TrafficSplit

FILE, POLICIES = "release.json", "policies"
VARIABLE = "RECBANDITS_RELEASE"  # URI of a release that a server follows, instead of AIP_STORAGE_URI, which is a copy


class Served(NamedTuple):
    """A release and its policies, by version."""

    release: TrafficSplit
    policies: dict[str, ServedPolicy]

    @property
    def num_items(self) -> int:
        """Return the number of items, at most, that an instance without candidates chooses from."""
        return max(0 if policy.candidates is None else len(policy.candidates) for policy in self.policies.values())

    def recommend(self, instance: Instance, defaults: Parameters) -> Recommendation:
        """Answer an `Instance` by the version of its user, or by the shares; ValueError where the policy refuses."""
        key = instance.user_id
        if key is None:
            key = uuid.uuid4().hex if instance.seed is None else f"seed {instance.seed}"
        try:
            return self.policies[self.release.version(key)].recommend(
                instance.context,
                instance.candidates or defaults.candidates,
                instance.k or defaults.k,
                instance.seed,
                instance.user_id,
                instance.candidate_features,
                instance.new_items,
            )
        except KeyError as error:
            raise ValueError(error.args[0]) from None


def find(uri: str | Path | None) -> Served | None:
    """Load what AIP_STORAGE_URI names, a directory or gs://...; ValueError for what is missing, damaged or another one.

    It holds either an exported policy, which then answers all users, or a release: `release.json` and
    `policies/<version>/` for every version in it. No URI, an empty directory, and policies without a release, are
    nothing to be served yet: None.
    """
    if not uri:
        return None
    if (release := read(uri)) is not None:
        return serve(uri, release, {})
    with local_directory(uri) as directory:
        if not directory.is_dir():
            raise ValueError(f"there is nothing at {uri}")
        names = [path.name for path in directory.iterdir() if not path.name.startswith(".")]  # but for drafts
        if names in ([], [POLICIES]):  # nothing, or what was undeployed
            return None
        loaded = policy.load(directory)
        return Served(TrafficSplit({loaded.version: 100}), {loaded.version: loaded})


def read(uri: str | Path) -> TrafficSplit | None:
    """Read the release of a directory or a gs:// URI; None where it has none, ValueError for something else."""
    try:
        content = read_bytes(f"{uri}/{FILE}")
        return None if content is None else TrafficSplit.of(json.loads(content))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{FILE} cannot be read: {error}") from error


def serve(uri: str | Path, release: TrafficSplit, loaded: Mapping[str, ServedPolicy]) -> Served:
    """Complete a release with its policies below a URI, but for those that are loaded; ValueError for a wrong one."""
    return Served(release, {version: loaded.get(version) or _load(uri, version) for version in release.shares})


def _load(uri, version):
    checks.require(re.fullmatch("[0-9a-f]{16}", version) is not None, "version", "16 hexadecimal digits", version)
    with local_directory(f"{uri}/{POLICIES}/{version}") as directory:
        if not directory.is_dir():
            raise ValueError(f"version {version} is not there: {POLICIES}/ has no directory of that name")
        loaded = policy.load(directory)
    checks.require(loaded.version == version, f"version of {POLICIES}/{version}", version, loaded.version)
    return loaded


class Answered(NamedTuple):
    """Result of a batch prediction: two files of JSON lines, each with the number of its lines."""

    predictions: Path  # of the answers, each {"instance": ..., "prediction": ...}, in the order of the lines
    answered: int
    refusals: Path  # of the refused lines, each {"line": number from 1, "error": sentence}
    refused: int


def batch_predict(policy: str | Path, source: str | Path, destination: str | Path) -> Answered:
    """Answer every line of a file, each an `Instance`, by the policy in a directory; see `answer_lines`."""
    if (served := find(policy)) is None:
        raise ValueError(f"there is no policy in {policy}")

    def answer(line):
        return Prediction.model_validate(served.recommend(Instance.parse(line), Parameters())).model_dump()

    return answer_lines(source, destination, answer)


def answer_lines(source: str | Path, destination: str | Path, answer: Callable[[bytes], dict]) -> Answered:
    """Answer every line of JSON in a file but empty ones, by a function that raises ValueError to refuse a line.

    The answers are in `destination`, replaced when it is complete, and refusals beside it in one with `.errors`.
    """
    good, bad, answered, refused = Path(destination), Path(f"{destination}.errors"), 0, 0
    with (
        checks.replacing(good) as good_draft,
        checks.replacing(bad) as bad_draft,
        open(source, "rb") as lines,
        good_draft.open("w") as answers,
        bad_draft.open("w") as errors,
    ):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                prediction = answer(line)
            except ValueError as error:
                errors.write(json.dumps({"line": number, "error": str(error)}) + "\n")
                refused += 1
                continue
            answers.write(json.dumps({"instance": json.loads(line), "prediction": prediction}) + "\n")
            answered += 1
    return Answered(good, answered, bad, refused)
