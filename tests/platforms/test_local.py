"""The laptop keeps the platform contract, and never removes anything outside its artifacts."""

import pytest
from platform_contract import PlatformContract

from recbandits.config import Config
from recbandits.platforms import PlatformError, Resource
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.provisioning import clean_up, create


@pytest.fixture
def platform(tmp_path):
    return LocalPlatform(Config(artifacts=str(tmp_path / "artifacts")))


def path(platform, resource):
    return platform.config.artifacts_dir / resource.name


class TestLocal(PlatformContract):
    def present(self, platform):
        return [resource for resource in platform.plan() if path(platform, resource).is_dir()]

    def occupy(self, platform, resource):
        path(platform, resource).mkdir(parents=True)

    def block_making(self, platform, resource):
        self.occupy(platform, Resource("directory", ""))
        path(platform, resource).write_text("a file is in the way")
        return path(platform, resource).unlink

    def block_removal(self, platform, resource):
        """A symbolic link in its place: what it points to is not ours."""
        elsewhere = platform.config.artifacts_dir.parent / "elsewhere"
        path(platform, resource).rename(elsewhere)
        path(platform, resource).symlink_to(elsewhere)
        return path(platform, resource).unlink


def test_clean_up_takes_the_contents_along_and_nothing_else(platform):
    create(platform)
    root = platform.config.artifacts_dir
    (root / "data" / "train.tfrecord").write_text("x")
    (root / "notes.txt").write_text("mine")
    clean_up(platform, dry_run=False)
    assert [file.name for file in root.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["../outside", "", ".", "/etc", "data/../../outside"])
def test_nothing_outside_the_artifacts_can_be_named(platform, name):
    for act in (platform.make, platform.remove):
        with pytest.raises(PlatformError, match="is not inside the artifacts directory"):
            act(Resource("directory", name))
