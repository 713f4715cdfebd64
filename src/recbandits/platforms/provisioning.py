"""Create what a platform lacks, remember what was made, remove exactly that.

The manifest is a JSON file in the artifacts directory. It is rewritten after every single step, so that whatever
interrupts a run, it lists what that run left behind.
"""

import json
from typing import NamedTuple

from recbandits.platforms import MADE, PlatformError, Resource


class Outcome(NamedTuple):
    """What happened to one resource."""

    kind: str
    name: str
    outcome: str


def create(platform):
    """Make whatever the plan names and the platform lacks; a second call finds everything in place.

    Returns:
      list of `Outcome`, one for each resource of the plan: "made", "found", or the platform's own word.

    Raises:
      PlatformError: a resource could not be made; what was made before is on the manifest.
    """
    outcomes = []
    for resource in platform.plan():
        outcome = platform.make(resource)
        if outcome == MADE:
            others = [listed for listed in manifest(platform) if listed != resource]
            _write(platform, [*others, resource])
        outcomes.append(Outcome(*resource, outcome))
    return outcomes


def clean_up(platform, dry_run=True):
    """Remove exactly what the manifest lists, newest first, with everything in it.

    Args:
      platform: where to remove.
      dry_run: only say what would be removed.

    Returns:
      list of `Outcome`: "would be removed" or "removed".

    Raises:
      PlatformError: a resource could not be removed; it and those before it stay on the manifest.
    """
    if dry_run:
        return [Outcome(*resource, "would be removed") for resource in reversed(manifest(platform))]
    outcomes = []
    while listed := manifest(platform):
        platform.remove(listed[-1])
        _write(platform, listed[:-1])
        outcomes.append(Outcome(*listed[-1], "removed"))
    return outcomes


def manifest(platform):
    """Every `Resource` that `create` made on this platform and `clean_up` has not removed yet, oldest first."""
    file = manifest_file(platform)
    if not file.exists():
        return []
    try:
        return [Resource(entry["kind"], entry["name"]) for entry in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise PlatformError(
            f"{file} is not a manifest ({error!r}): restore it, or remove the resources by hand"
        ) from error


def manifest_file(platform):
    """`pathlib.Path` of the platform's manifest, which exists while it lists anything."""
    return platform.config.artifacts_dir / f"manifest-{platform.name}.json"


def _write(platform, resources):
    file = manifest_file(platform)
    if not resources:
        file.unlink()
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps([resource._asdict() for resource in resources], indent=2) + "\n", encoding="utf-8")
    draft.replace(file)
