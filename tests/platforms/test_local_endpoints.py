"""Endpoints on this machine: found by every process, and gone when they are deleted."""

import json
import os
import resource
import shutil
import signal
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier

import psutil
import pytest
from endpoints_contract import EndpointsContract

from recbandits.config import Config
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.local.endpoints import LocalEndpoint, socket_of
from recbandits.platforms.protocol import PlatformError
from recbandits.serving.policy import load
from tests.commands import run_python
from tests.forks import run_unprivileged
from tests.waiting import is_gone


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return Config(artifacts=str(tmp_path_factory.mktemp("artifacts") / "with spaces, ä and 日本"))


@pytest.fixture(scope="module")
def created_endpoint(config):
    endpoint = LocalPlatform(config).endpoints.create()
    yield endpoint
    endpoint.delete()


@pytest.fixture
def endpoint(created_endpoint):
    """An endpoint without a policy; several tests share its server."""
    yield created_endpoint
    if serving := [version for version, share in created_endpoint.traffic_split.items() if share]:
        created_endpoint.split(dict.fromkeys(serving, 0) | {serving[0]: 100})
    for version in sorted(created_endpoint.traffic_split, key=created_endpoint.traffic_split.get):
        created_endpoint.undeploy(version)


def process_of(endpoint):
    return psutil.Process(endpoint.metrics()["process"])


OTHER = """
import sys
from recbandits.config import Config
from recbandits.platforms.local import LocalPlatform
endpoint = LocalPlatform(Config(artifacts=sys.argv[1])).endpoints.create("once")
print(endpoint.metrics()["process"], endpoint.name)
"""


def test_an_endpoint_is_made_once_and_found_by_another_process(config, exported):
    endpoint = LocalPlatform(config).endpoints.create("once")
    server = process_of(endpoint)
    again = LocalPlatform(config).endpoints.create("once")
    assert again.metrics()["process"] == server.pid
    assert run_python(OTHER, config.artifacts_dir) == f"{server.pid} once\n"
    again.delete()
    assert is_gone(server)
    assert not endpoint.directory.exists()
    assert endpoint.health() == {"alive": False, "ready": False, "reason": "the server is not running"}
    with pytest.raises(PlatformError, match="endpoint once does not exist"):
        endpoint.predict([{"user_id": 7}])
    with pytest.raises(PlatformError, match="endpoint once does not exist"):
        endpoint.deploy(exported[0])
    assert not endpoint.directory.exists()


def test_those_who_come_at_once_share_one_server_and_no_deployment_is_lost(config, exported):
    def deploy_policy(policy):
        endpoint = LocalPlatform(config).endpoints.create("together")
        return endpoint.deploy(policy, 50 if endpoint.traffic_split else 100), process_of(endpoint)

    try:
        with ThreadPoolExecutor(3) as threads:
            versions, servers = zip(*threads.map(deploy_policy, exported), strict=True)
        endpoint = LocalPlatform(config).endpoints.create("together")
        assert set(servers) == {process_of(endpoint)}
        assert set(endpoint.traffic_split) == set(versions)
    finally:
        LocalPlatform(config).endpoints.create("together").delete()


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a--b", "a" * 64, 7])
def test_a_name_that_is_none_is_refused(config, name):
    """By the rule of `Config`, which all services of both platforms apply."""
    with pytest.raises(ValueError, match="name must be at most 63 lower-case letters, digits and single hyphens, got"):
        LocalPlatform(config).endpoints.create(name)


@pytest.mark.parametrize("topic", ["events", "", "projects/local/topics/", "projects/local/topic/events", 7])
def test_a_topic_without_its_full_name_is_refused_before_anything_is_made(config, topic):
    """Its decisions would be logged to no subscription, and answered all the same."""
    with pytest.raises(ValueError, match=r"^topic must be 'projects/<project>/topics/<topic>' or None, got "):
        LocalPlatform(config).endpoints.create("silent", topic)
    assert not list((config.artifacts_dir / "endpoints").glob("silent*"))


class TestLocalEndpoints(EndpointsContract):
    """The contract that Vertex AI's endpoints keep too; `endpoint` and `exported` are fixtures."""


def test_a_policy_that_was_refused_or_undeployed_leaves_nothing_behind(endpoint, exported):
    version = endpoint.deploy(exported[0])
    with pytest.raises(ValueError, match="must be a whole number from 0 to 100, got 101"):
        endpoint.deploy(exported[1], 101)
    undeployed_version = endpoint.deploy(exported[1], 0)
    endpoint.undeploy(undeployed_version)
    assert [path.name for path in (endpoint.directory / "storage" / "policies").iterdir()] == [version]
    with pytest.raises(PlatformError, match=f"cannot use version {undeployed_version}: deploy it first"):
        endpoint.split({undeployed_version: 100, version: 0})


@pytest.mark.parametrize("late", [1, 2])
def test_a_server_that_takes_a_release_too_late_returns_to_the_present_one_or_keeps_the_copy(
    endpoint, exported, monkeypatch, late
):
    """Its answer comes after the time-out, to the first request or to the second one too."""
    version, ask, requests = endpoint.deploy(exported[0]), endpoint._ask, count(1)

    def ask_impatiently(*arguments):
        answer = ask(*arguments)
        if next(requests) <= late:
            raise PlatformError("timed out")
        return answer

    monkeypatch.setattr(endpoint, "_ask", ask_impatiently)
    with pytest.raises(PlatformError, match="timed out"):
        endpoint.deploy(exported[1])
    copies = {path.name for path in (endpoint.directory / "storage" / "policies").iterdir()}
    assert ask("GET", "/release")["shares"] == endpoint.traffic_split == {version: 100}
    assert copies == {version} | ({load(exported[1]).version} if late == 2 else set())
    shutil.rmtree(endpoint.directory / "storage" / "policies" / load(exported[1]).version, ignore_errors=True)


def test_of_those_who_change_the_same_shares_at_once_one_wins(endpoint, exported, config):
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 10)
    traffic_split, barrier = endpoint.traffic_split, Barrier(4)

    def change(share):
        own_endpoint = LocalPlatform(config).endpoints.create()
        barrier.wait()
        try:
            own_endpoint.split({first: 100 - share, second: share}, expected=traffic_split)
        except PlatformError:
            return None
        return share

    with ThreadPoolExecutor(4) as threads:
        winners = [share for share in threads.map(change, (20, 30, 40, 50)) if share]
    assert len(winners) == 1
    assert endpoint.traffic_split == {first: 100 - winners[0], second: winners[0]}


def test_after_a_killed_server_the_endpoint_starts_again_with_what_it_served(endpoint, exported, config):
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 30)
    before = [each["policy_version"] for each in endpoint.predict([{"user_id": user} for user in range(1, 31)])]
    server_process = process_of(endpoint)
    os.kill(server_process.pid, signal.SIGKILL)
    again = LocalPlatform(config).endpoints.create()
    assert process_of(again).pid != server_process.pid
    assert again.traffic_split == {first: 70, second: 30}
    assert [each["policy_version"] for each in again.predict([{"user_id": user} for user in range(1, 31)])] == before
    again.rollback()
    assert again.traffic_split == {first: 100, second: 0}


def test_undeploying_the_last_version_leaves_an_endpoint_that_starts_again(endpoint, exported, config):
    endpoint.undeploy(endpoint.deploy(exported[0]))
    server_process = process_of(endpoint)
    os.kill(server_process.pid, signal.SIGKILL)
    again = LocalPlatform(config).endpoints.create()
    assert process_of(again).pid != server_process.pid
    assert again.health() == {"alive": True, "ready": False, "reason": "no policy is deployed yet"}
    again.deploy(exported[0])
    assert again.health()["ready"]


@pytest.mark.parametrize("link", [None, "/nowhere", "/proc/self/mem"])
def test_a_copy_that_a_killed_deployment_left_damaged_is_replaced(endpoint, exported, link):
    """Its scorer is missing, or a link to nothing, or to what the system refuses to read."""
    version = load(exported[0]).version
    policy_dir = endpoint.directory / "storage" / "policies" / version
    shutil.copytree(exported[0], policy_dir)
    (policy_dir / "scorer.npz").unlink()
    if link:
        (policy_dir / "scorer.npz").symlink_to(link)
    assert endpoint.deploy(exported[0]) == version
    assert load(policy_dir).version == version
    assert len(endpoint.predict([{"user_id": 7}])) == 1


def test_a_read_only_policy_is_deployed_as_a_copy_that_can_be_removed(endpoint, exported, tmp_path):
    """Its owner could neither rename nor empty a directory that is read-only itself."""
    policy = shutil.copytree(exported[0], tmp_path / "policy")
    for path in (policy, *policy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    copy = endpoint.directory / "storage" / "policies" / endpoint.deploy(policy)
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (copy, *copy.rglob("*"))}
    assert modes == {(True, 0o700), (False, 0o600)}


def test_what_a_killed_deployment_has_copied_of_a_read_only_policy_can_be_removed(exported, open_folder, monkeypatch):
    """A user who is not root, and could not empty a read-only folder, is killed at one step after the other."""
    policy, killed = shutil.copytree(exported[0], open_folder / "policy"), 0
    endpoint, version = LocalEndpoint("shop", open_folder / "shop"), load(policy).version
    monkeypatch.setattr("recbandits.platforms.local.endpoints.socket_of", lambda directory: str(directory / "none"))
    for path in (policy, *policy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def deploy():
        steps = count()

        def kill(_, arguments):
            if f"/.{version}." in str(arguments) and next(steps) == killed:
                os._exit(1)

        sys.addaudithook(kill)
        with pytest.raises(PlatformError, match="endpoint shop cannot be reached"):  # it has no server
            endpoint.deploy(policy)
        return "done"

    while run_unprivileged(deploy) == "killed":
        killed += 1
    drafts = list(endpoint.directory.glob("storage/policies/.*"))
    assert len(drafts) > 20
    assert run_unprivileged(lambda: [shutil.rmtree(draft) for draft in drafts]) == [None] * len(drafts)


def test_on_a_full_disk_the_release_stays_and_the_sentence_says_why(endpoint, exported):
    """Files may have 1,000 bytes while a policy is copied, and 10 while a release is written."""
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 30)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    changes = {1000: lambda: endpoint.deploy(exported[2]), 10: lambda: endpoint.split({first: 0, second: 100})}
    for size, change in changes.items():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
        try:
            with pytest.raises(PlatformError, match=r"^endpoint recbandits-v1 could not be changed: .*File too large"):
                change()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert endpoint.traffic_split == endpoint._ask("GET", "/release")["shares"] == {first: 70, second: 30}
        assert {path.name for path in (endpoint.directory / "storage" / "policies").iterdir()} == {first, second}


def test_a_link_of_another_user_in_the_temporary_folder_is_not_followed(tmp_path, monkeypatch):
    """The socket of a long path is there, and who has it is sent the token."""
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / f"recbandits-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with pytest.raises(PlatformError, match=r"must be a directory to which this user alone can write"):
        LocalPlatform(Config(artifacts=str(tmp_path / ("long" * 40)))).endpoints.create()
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755


def test_the_token_of_an_endpoint_is_its_users_alone(endpoint):
    file = endpoint.directory / "run.json"
    assert len(json.loads(file.read_text())["variables"]["RECBANDITS_ADMIN_TOKEN"]) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_a_killed_deployment_left_to_the_server_is_set_right_by_the_next_process(endpoint, exported, config):
    """It was killed after the server had taken a release, and before the release had its name."""
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 0)
    endpoint._ask("PUT", "/release", {"shares": {second: 100}})
    storage = endpoint.directory / "storage"
    for draft in (storage / ".release.json.k3x", storage / "policies" / f".{second}.k3x"):
        draft.mkdir()
    (storage / ".DS_Store").touch()  # as macOS does
    again = LocalPlatform(config).endpoints.create()
    assert again._ask("GET", "/release")["shares"] == again.traffic_split == {first: 100, second: 0}
    assert list(storage.rglob(".*")) == [storage / ".DS_Store"]
    (storage / ".DS_Store").unlink()
    endpoint.split({second: 100})
    endpoint.undeploy(first)
    endpoint.undeploy(second)
    endpoint._ask("PUT", "/release", {"shares": {endpoint.deploy(exported[0]): 100}})
    (storage / "release.json").unlink()
    assert not LocalPlatform(config).endpoints.create().health()["ready"]


def test_a_server_that_does_not_start_is_reported_with_its_last_words(config, exported):
    endpoint = LocalPlatform(config).endpoints.create("broken")
    endpoint.deploy(exported[0])
    os.kill(process_of(endpoint).pid, signal.SIGKILL)
    (endpoint.directory / "storage" / "release.json").write_text('{"shares": {"a": 7}}')
    with pytest.raises(PlatformError, match=r"(?s)endpoint broken did not start.*shares must add up to 100, got 7"):
        LocalPlatform(config).endpoints.create("broken")
    endpoint.delete()
    assert not endpoint.directory.exists()


def test_answers_and_logs_come_as_they_are(endpoint, exported):
    endpoint.deploy(exported[0])
    with pytest.raises(PlatformError, match=r"answered 422: instances\[0\]: unknown item ids: 999"):
        endpoint.predict([{"candidates": ["999"]}])
    status, body = endpoint.raw_predict(b"{", {"Content-Type": "application/json"})
    assert (status, json.loads(body)["detail"][:21]) == (400, "the body must be JSON")
    assert "Application startup complete" in endpoint.logs()
    assert "POST" not in endpoint.logs(), "a line for each prediction would be a log of its own"


def test_a_batch_is_answered_without_the_server(endpoint, exported, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"user_id": 7}\n{"candidates": ["999"]}\n')
    results = endpoint.batch_predict(exported[0], tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (results.answered, results.refused) == (1, 1)
    assert not endpoint.health()["ready"]


def test_a_server_that_logs_elsewhere_is_started_anew_with_what_it_served(endpoint, exported, config):
    """The decision that was answered is in the new topic, also after a kill and a start by one who knows no topic."""
    version, before = endpoint.deploy(exported[0]), process_of(endpoint)
    platform = LocalPlatform(config)
    topic = platform.messages.topic("decisions")
    reader = platform.messages.subscription("reader", topic)
    again = platform.endpoints.create(topic=topic)
    assert is_gone(before)
    assert again.traffic_split == {version: 100}
    (first,) = again.predict([{"user_id": 7}])
    assert process_of(platform.endpoints.create(topic=topic)) == process_of(platform.endpoints.create()) != before
    process_of(endpoint).kill()
    (second,) = platform.endpoints.create().predict([{"user_id": 7}])
    logged = [message.attributes["event_id"] for message in platform.messages.take(reader, 10)]
    assert logged == [first["event_id"], second["event_id"]]


def test_an_endpoint_listens_on_a_socket_of_its_owner_alone_and_on_no_port(exported, tmp_path, monkeypatch):
    """Neither a path that is too long for a socket nor a proxy matters; the socket goes with the endpoint."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    endpoint = LocalPlatform(Config(artifacts=str(tmp_path / ("long" * 40)))).endpoints.create()
    try:
        endpoint.deploy(exported[0])
        assert len(endpoint.predict([{"user_id": "7"}])) == 1
        address = socket_of(endpoint.directory)
        assert (address.stat().st_mode & 0o777, address.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        connections = [each for process in endpoint.unit.members() for each in process.net_connections("inet")]
        assert connections == []
    finally:
        endpoint.delete()
    assert not address.exists()


def test_an_endpoint_is_deleted_by_its_name_and_one_that_is_not_there_is_not_made(config):
    endpoints = LocalPlatform(config).endpoints
    endpoint = endpoints.create("named")
    members = list(endpoint.unit.members())
    for _ in range(2):
        endpoints.delete("named")
    assert [is_gone(process) for process in members] == [True, True]
    assert not endpoint.directory.exists()
    with pytest.raises(ValueError, match=r"name must be .* got '\.\.'"):
        endpoints.delete("..")
