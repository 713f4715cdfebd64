"""Create what a platform lacks, remember what was made, remove exactly that.

The manifest is a JSON file in the artifacts directory. A resource is listed when it has been looked for and is not
there, before it is made, and taken off when the platform says that this call has not made it. So whatever interrupts a
run, everything it made is listed, and nothing that was there before ever is.

`create` makes what is planned. What is made later, as topics and functions are, is listed in the same way: by `enter`
where it is made, or by `expect` where another machine will make it, such as a pipeline that deploys. Several processes
may do so at once.

Records of what ran are not listed, and stay: training and tuning jobs, batch predictions, runs of pipelines, the
contexts of experiments. None of them bills once it has ended; what they wrote goes with the bucket.

The manifest knows names. A run that is killed between listing and making leaves a name with nothing behind it: the next
`create` makes it, `clean_up` passes over it. If somebody else makes a resource of that very name before either is
called, it counts as ours. The same holds for a listed resource that others remove and make again.
"""

import contextlib
import fcntl
import json
import os
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
        _drop(platform.config, listed[-1])
        outcomes.append(Outcome(*listed[-1], "removed"))
    return outcomes


def enter(config, resource, make):
    """Make something that was looked for and is not there, listed while it is not certain that it is not ours.

    Args:
      config: Config of the platform where it is made.
      resource: `Resource`
      make: function without arguments that gives MADE if it exists because of this call, or another word.

    Returns:
      What `make` gave.

    Raises:
      PlatformError: of `make`; after a `NotMadeError` it is not listed.
    """
    _add(config, resource)
    try:
        outcome = make()
    except NotMadeError:
        _drop(config, resource)
        raise
    if outcome != MADE:
        _drop(config, resource)
    return outcome


def expect(config, resource, exists):
    """List a resource that is about to be made for us elsewhere or later, unless it is there before.

    A manifest that is kept where a step of a pipeline runs ends with that step: whoever starts it lists what it makes.
    So does whoever makes something that will need this one, which then is removed first.

    Args:
      config: Config of the platform where it will be made.
      resource: `Resource`
      exists: `Platform.exists`, or another function that says whether a resource is there.

    Raises:
      PlatformError: it cannot be said whether it is there.
    """
    if resource not in _read(_file(config)) and not exists(resource):
        _add(config, resource)


def manifest(platform):
    """Every `Resource` that is ours, or may be, and `clean_up` has not removed yet, oldest first."""
    return _read(manifest_file(platform))


def manifest_file(platform):
    """`pathlib.Path` of the platform's manifest, which exists while it lists anything."""
    return _file(platform.config)


def _make(platform, resource):
    """Make one resource of the plan; gives the outcome."""
    if resource.kind in platform.lasting:
        return platform.make(resource)
    if platform.exists(resource):
        return FOUND
    return enter(platform.config, resource, lambda: platform.make(resource))


def _add(config, resource):
    """List a resource as the newest, unless it is listed: what was made to use it stays newer."""
    with _turn(config) as file:
        listed = _read(file)
        if resource not in listed:
            _write(file, [*listed, resource])


def _drop(config, resource):
    """List a resource no more."""
    with _turn(config) as file:
        _write(file, [listed for listed in _read(file) if listed != resource])


def _file(config):
    return config.artifacts_dir / f"manifest-{config.platform}.json"


@contextlib.contextmanager
def _turn(config):
    """The manifest's file, while no other process rewrites it; the directory itself is what they lock."""
    file = _file(config)
    with _one_sentence(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(lock)


def _read(file):
    try:
        return [Resource(entry["kind"], entry["name"]) for entry in json.loads(file.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        raise PlatformError(
            f"{file} is not a manifest ({error!r}): restore it, or remove the resources by hand"
        ) from error


def _write(file, resources):
    """Rewrite the manifest at once; an empty one is no file."""
    draft = file.with_suffix(".draft")
    entries = [resource._asdict() for resource in resources]
    with _one_sentence(file):
        draft.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        draft.replace(file)
        if not entries:
            file.unlink()


@contextlib.contextmanager
def _one_sentence(file):
    try:
        yield
    except OSError as error:
        raise PlatformError(f"the manifest {file} could not be written: {error.strerror or error}") from error
