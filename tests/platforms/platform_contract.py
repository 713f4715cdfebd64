"""What every platform must do, whatever is behind it."""

import contextlib
import json

import pytest

from recbandits.platforms.protocol import FOUND, MADE, PlatformError
from recbandits.platforms.provisioning import clean_up, create, manifest, manifest_file


class PlatformContract:
    """A test class supplies the fixture `platform` and the four methods below."""

    def present(self, platform):
        """Every planned resource that exists and clean-up could remove."""
        raise NotImplementedError

    def occupy(self, platform, resource):
        """Make the resource by other hands."""
        raise NotImplementedError

    def block_making(self, platform, resource):
        """From now on the resource cannot be made; returns a call that lifts this."""
        raise NotImplementedError

    def block_removal(self, platform, resource):
        """From now on the resource cannot be removed; returns a call that lifts this."""
        raise NotImplementedError

    def test_planning_makes_nothing(self, platform):
        assert len(platform.plan()) == len(set(platform.plan())) > 0
        assert self.present(platform) == []
        assert not manifest_file(platform).exists()

    def test_creation_makes_the_whole_plan_and_lists_it(self, platform):
        outcomes = create(platform)
        assert [outcome[:2] for outcome in outcomes] == [tuple(resource) for resource in platform.plan()]
        made = [outcome[:2] for outcome in outcomes if outcome.outcome == MADE]
        assert self.present(platform) == manifest(platform) == made
        assert json.loads(manifest_file(platform).read_text())[0] == {"kind": made[0][0], "name": made[0][1]}

    def test_looking_tells_what_is_there(self, platform):
        listable = [resource for resource in platform.plan() if resource.kind not in platform.lasting]
        assert not any(platform.exists(resource) for resource in listable)
        create(platform)
        assert all(platform.exists(resource) for resource in listable)

    def test_a_second_creation_finds_everything_and_leaves_the_manifest_alone(self, platform):
        create(platform)
        before = manifest(platform)
        assert {outcome.outcome for outcome in create(platform)} == {FOUND}
        assert manifest(platform) == before

    def test_what_was_there_before_is_not_ours_and_survives(self, platform):
        theirs = platform.plan()[-1]
        self.occupy(platform, theirs)
        assert create(platform)[-1].outcome == FOUND
        assert theirs not in manifest(platform)
        clean_up(platform, dry_run=False)
        assert self.present(platform) == [theirs]

    @pytest.mark.parametrize("made", [False, True])
    def test_an_interruption_of_making_leaves_nothing_unlisted(self, platform, monkeypatch, made):
        last = platform.plan()[-1]
        with monkeypatch.context() as patch:
            self.interrupt_making(patch, platform, last, made)
            with pytest.raises(KeyboardInterrupt):
                create(platform)
        assert (last in self.present(platform)) == made
        assert manifest(platform)[-1] == last
        clean_up(platform, dry_run=False)
        assert self.present(platform) == manifest(platform) == []

    def test_what_an_interrupted_creation_made_stays_listed_when_the_next_one_finds_it(self, platform, monkeypatch):
        last = platform.plan()[-1]
        with monkeypatch.context() as patch:
            self.interrupt_making(patch, platform, last, made=True)
            with pytest.raises(KeyboardInterrupt):
                create(platform)
        assert create(platform)[-1].outcome == FOUND
        assert manifest(platform) == self.present(platform)

    def test_no_interruption_lists_what_was_there_before(self, platform, monkeypatch):
        theirs = platform.plan()[-1]
        self.occupy(platform, theirs)
        with contextlib.suppress(KeyboardInterrupt):
            self.interrupt_making(monkeypatch, platform, theirs, made=False)
            create(platform)
        assert theirs not in manifest(platform)
        clean_up(platform, dry_run=False)
        assert self.present(platform) == [theirs]

    def test_what_somebody_else_makes_between_looking_and_making_is_theirs(self, platform, monkeypatch):
        theirs, make = platform.plan()[-1], platform.make

        def overtaken(resource):
            if resource == theirs:
                self.occupy(platform, theirs)
            return make(resource)

        monkeypatch.setattr(platform, "make", overtaken)
        assert create(platform)[-1].outcome == FOUND
        assert theirs not in manifest(platform)
        clean_up(platform, dry_run=False)
        assert self.present(platform) == [theirs]

    def interrupt_making(self, monkeypatch, platform, resource, made):
        """From now on making that resource is interrupted, before or after it is `made`."""
        make = platform.make

        def interrupted(asked):
            outcome = make(asked) if made or asked != resource else None
            if asked == resource:
                raise KeyboardInterrupt
            return outcome

        monkeypatch.setattr(platform, "make", interrupted)

    def test_a_dry_run_is_the_default_and_removes_nothing(self, platform):
        create(platform)
        before = manifest(platform)
        outcomes = clean_up(platform)
        assert [outcome[:2] for outcome in outcomes] == before[::-1]
        assert {outcome.outcome for outcome in outcomes} == {"would be removed"}
        assert self.present(platform) == manifest(platform) == before

    def test_clean_up_removes_exactly_the_manifest(self, platform):
        create(platform)
        listed = manifest(platform)
        outcomes = clean_up(platform, dry_run=False)
        assert [outcome[:2] for outcome in outcomes] == listed[::-1]
        assert {outcome.outcome for outcome in outcomes} == {"removed"}
        assert self.present(platform) == manifest(platform) == []
        assert not manifest_file(platform).exists()
        assert clean_up(platform, dry_run=False) == []

    def test_what_somebody_else_removed_is_no_error(self, platform):
        create(platform)
        for resource in manifest(platform)[::-1]:
            platform.remove(resource)
        clean_up(platform, dry_run=False)
        assert manifest(platform) == []

    def test_what_is_made_again_is_listed_once(self, platform):
        create(platform)
        last = platform.plan()[-1]
        platform.remove(last)
        assert create(platform)[-1].outcome == MADE
        assert manifest(platform) == self.present(platform)

    def test_an_interrupted_creation_lists_what_it_made_and_can_go_on(self, platform):
        last = platform.plan()[-1]
        lift = self.block_making(platform, last)
        with pytest.raises(PlatformError, match=f"{last.kind} {last.name} could not be made: ") as refusal:
            create(platform)
        assert "\n" not in str(refusal.value), "a refusal is one sentence"
        assert manifest(platform) == self.present(platform)
        assert last not in manifest(platform)
        lift()
        create(platform)
        assert manifest(platform) == self.present(platform)
        assert manifest(platform)[-1] == last

    def test_an_interrupted_clean_up_lists_what_is_left_and_can_go_on(self, platform):
        create(platform)
        first = manifest(platform)[0]
        lift = self.block_removal(platform, first)
        with pytest.raises(PlatformError, match=f"{first.kind} {first.name} could not be removed: "):
            clean_up(platform, dry_run=False)
        assert manifest(platform) == [first]
        lift()
        assert [outcome[:2] for outcome in clean_up(platform, dry_run=False)] == [first]
        assert manifest(platform) == []

    def test_a_damaged_manifest_is_refused(self, platform):
        create(platform)
        manifest_file(platform).write_text('[{"kind": "bucket"}]')
        with pytest.raises(PlatformError, match=r"manifest-.*\.json is not a manifest"):
            clean_up(platform, dry_run=False)
