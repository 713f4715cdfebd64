"""Create what a platform lacks, remember what was made, remove exactly that.

The manifest is a JSON file in the artifacts directory. A resource is listed when it has been looked for and is not
there, before it is made, and taken off when the platform says that this call has not made it. So whatever interrupts a
run, everything it made is listed, and nothing that was there before ever is.

The manifest knows names. A run that is killed between listing and making leaves a name with nothing behind it: the next
`create` makes it, `clean_up` passes over it. If somebody else makes a resource of that very name before either is
called, it counts as ours. The same holds for a listed resource that others remove and make again.
"""

import json
from typing import NamedTuple

from recbandits.platforms import FOUND, MADE, NotMadeError, PlatformError, Resource


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
      PlatformError: a resource could not be made; what was made before is on the manifest, and so is this one unless
        it is certain that it was not made.
    """
    return [Outcome(*resource, _make(platform, resource)) for resource in platform.plan()]


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
    """Every `Resource` that `create` made, or began to make, and `clean_up` has not removed yet, oldest first."""
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


def _make(platform, resource):
    """Make one resource, listed while it is not certain that it is not ours; gives the outcome."""
    if resource.kind in platform.lasting:
        return platform.make(resource)
    if platform.exists(resource):
        return FOUND
    others = [listed for listed in manifest(platform) if listed != resource]
    _write(platform, [*others, resource])
    try:
        outcome = platform.make(resource)
    except NotMadeError:
        _write(platform, others)
        raise
    if outcome != MADE:
        _write(platform, others)
    return outcome


def _write(platform, resources):
    """Rewrite the manifest at once; an empty one is no file."""
    file = manifest_file(platform)
    draft = file.with_suffix(".draft")
    entries = [resource._asdict() for resource in resources]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        draft.replace(file)
        if not entries:
            file.unlink()
    except OSError as error:
        raise PlatformError(f"the manifest {file} could not be written: {error.strerror or error}") from error
