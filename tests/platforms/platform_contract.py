"""The contract of every platform."""

import pytest

from recbandits.platforms.protocol import PlatformError


class PlatformContract:
    """A test class supplies the fixture `platform` and the methods below."""

    def occupy(self, platform):
        """Make one resource by other hands, and return its (kind, name)."""
        raise NotImplementedError

    def present(self, platform):
        """List the (kind, name) of every resource that exists and clean-up could remove."""
        raise NotImplementedError

    def block_making(self, platform):
        """From now on one resource cannot be created; returns a call that lifts this."""
        raise NotImplementedError

    def block_removal(self, platform):
        """From now on one resource cannot be removed; returns a call that lifts this."""
        raise NotImplementedError

    def test_a_new_place_is_empty(self, platform):
        assert self.present(platform) == []
        assert platform.clean_up() == []

    def test_a_second_call_creates_nothing(self, platform):
        created = [outcome[:2] for outcome in platform.create() if outcome.outcome == "created"]
        assert set(created) == set(self.present(platform)) != set()
        assert "created" not in {outcome.outcome for outcome in platform.create()}

    def test_clean_up_removes_what_creation_made_and_by_default_only_says_so(self, platform):
        platform.create()
        resources = self.present(platform)
        planned = platform.clean_up()
        assert {outcome[:2] for outcome in planned} == set(resources)
        assert {outcome.outcome for outcome in planned} == {"would be removed"}
        assert self.present(platform) == resources
        assert platform.clean_up(dry_run=False) == [outcome._replace(outcome="removed") for outcome in planned]
        assert self.present(platform) == []
        assert platform.clean_up(dry_run=False) == []

    def test_what_was_there_before_is_not_ours_and_survives(self, platform):
        foreign_resource = self.occupy(platform)
        assert (*foreign_resource, "exists") in platform.create()
        assert foreign_resource not in {outcome[:2] for outcome in platform.clean_up(dry_run=False)}
        assert self.present(platform) == [foreign_resource]

    def test_a_creation_that_was_refused_can_go_on(self, platform):
        lift = self.block_making(platform)
        with pytest.raises(PlatformError) as refusal:
            platform.create()
        assert "\n" not in str(refusal.value), "a refusal is one sentence"
        assert {outcome[:2] for outcome in platform.clean_up()} == set(self.present(platform))
        lift()
        platform.create()
        assert {outcome[:2] for outcome in platform.clean_up()} == set(self.present(platform))

    def test_a_clean_up_that_was_refused_can_go_on(self, platform):
        platform.create()
        lift = self.block_removal(platform)
        with pytest.raises(PlatformError) as refusal:
            platform.clean_up(dry_run=False)
        assert "\n" not in str(refusal.value), "a refusal is one sentence"
        assert self.present(platform) != []
        lift()
        platform.clean_up(dry_run=False)
        assert self.present(platform) == []
