"""Contract of the endpoints of every platform."""

import pytest

from recbandits.platforms.protocol import PlatformError


class EndpointsContract:
    """A test class supplies the fixture `endpoint`, an empty one; `exported` are three directories of policies."""

    def test_a_new_endpoint_is_alive_and_not_ready(self, endpoint):
        assert endpoint.traffic_split == {}
        health = endpoint.health()
        assert (health["alive"], health["ready"], health["reason"]) == (True, False, "no policy is deployed yet")

    def test_shares_keep_their_proportions_and_add_up_to_100(self, endpoint, exported):
        """70 and 30 share the 50 % that a third one leaves: 35 and 15."""
        first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 30)
        assert endpoint.traffic_split == {first: 70, second: 30}
        third = endpoint.deploy(exported[2], 50)
        assert endpoint.traffic_split == {first: 35, second: 15, third: 50}
        assert endpoint.deploy(exported[1], 100) == second, "deployed again it is the same version"
        assert endpoint.traffic_split == {first: 0, second: 100, third: 0}
        assert endpoint.health()["ready"]

    def test_the_last_change_can_be_undone_and_done_again(self, endpoint, exported):
        first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 10)
        endpoint.split({second: 100})
        assert endpoint.traffic_split == {first: 0, second: 100}
        endpoint.rollback()
        assert endpoint.traffic_split == {first: 90, second: 10}
        endpoint.rollback()
        assert endpoint.traffic_split == {first: 0, second: 100}

    def test_shares_that_another_client_has_changed_since_they_were_read_stay(self, endpoint, exported):
        first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 10)
        traffic_split = endpoint.traffic_split
        endpoint.split({first: 50, second: 50}, expected=traffic_split)
        words = f"endpoint {endpoint.name} must have the shares .*90.* still, .* got .*50"
        with pytest.raises(PlatformError, match=words):
            endpoint.split({second: 100}, expected=traffic_split)
        assert endpoint.traffic_split == {first: 50, second: 50}
        endpoint.rollback()
        assert endpoint.traffic_split == traffic_split, "what was refused is no change that could be undone"

    def test_a_version_goes_without_traffic_or_as_the_only_one(self, endpoint, exported):
        first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 10)
        with pytest.raises(ValueError, match=f"version '{second}' still has 10 % of the traffic: split it first"):
            endpoint.undeploy(second)
        endpoint.split({first: 100})
        endpoint.undeploy(second)
        assert endpoint.traffic_split == {first: 100}
        with pytest.raises(ValueError, match="there is no earlier release to return to"):
            endpoint.rollback()
        endpoint.undeploy(first)
        assert endpoint.traffic_split == {}
        with pytest.raises(PlatformError, match="has no policy, deploy one first"):
            endpoint.rollback()

    def test_what_is_refused_changes_nothing(self, endpoint, exported, tmp_path):
        version = endpoint.deploy(exported[0])
        (tmp_path / "notes.txt").write_text("no policy")
        with pytest.raises(ValueError, match="must be the directory of an exported policy"):
            endpoint.deploy(tmp_path)
        with pytest.raises(ValueError, match="must be a whole number from 0 to 100, got 101"):
            endpoint.deploy(exported[1], 101)
        with pytest.raises(ValueError, match="shares must add up to 100, got 90"):
            endpoint.split({version: 90})
        with pytest.raises(ValueError, match="version '0123456789abcdef' is not deployed"):
            endpoint.undeploy("0123456789abcdef")
        with pytest.raises(PlatformError, match="cannot use version 0123456789abcdef: deploy it first"):
            endpoint.split({version: 0, "0123456789abcdef": 100})
        assert endpoint.traffic_split == {version: 100}
