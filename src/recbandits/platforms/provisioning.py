"""Create what a platform lacks, remember what was made, remove exactly that.

The manifest is a JSON file in the artifacts directory. A resource is listed when it has been looked for and is not
there, before it is made, under a claim of the call that makes it. When the platform says that this call has made it, it
is listed for good; when it says that it has not, the claim is withdrawn. So whatever interrupts a run, everything it
made is listed, and nothing that was there before ever is.

`create` makes what is planned. What is made later, as topics and functions are, is listed in the same way: by `enter`
where it is made, or by `expect` where another machine will make it, such as a pipeline that deploys. Several processes
may do so at once: each withdraws only its own claim, and what nobody claims any more is listed no more. The claim of a
process that was killed stays, for it may have made the thing.

Records of what ran are not listed, and stay: training and tuning jobs, batch predictions, the contexts of experiments,
and runs of pipelines that deploy nothing. None of them has a machine once it has ended; what they wrote goes with the
bucket. Runs of pipelines that deploy are listed, and go, for one that goes on would deploy again what is removed.

The manifest knows names. A run that is killed between listing and making leaves a name with nothing behind it: the next
`create` makes it, `clean_up` passes over it. If somebody else makes a resource of that very name before either is
called, it counts as ours. The same holds for a listed resource that others remove and make again.
"""

import contextlib
import fcntl
import json
import os
import uuid
from typing import NamedTuple

from recbandits.platforms.protocol import FOUND, MADE, NotMadeError, PlatformError, Resource


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
      PlatformError: of `make`; after a `NotMadeError` it is not listed, unless by others.
    """
    claim = uuid.uuid4().hex
    _add(config, resource, claim)
    try:
        outcome = make()
    except NotMadeError:
        _withdraw(config, resource, claim)
        raise
    if outcome == MADE:
        _add(config, resource)
    else:
        _withdraw(config, resource, claim)
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
    if resource in _read(_file(config)) or not exists(resource):
        _add(config, resource)


def manifest(platform):
    """Every `Resource` that is ours, or may be, and `clean_up` has not removed yet, oldest first."""
    return list(_read(manifest_file(platform)))


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


def _add(config, resource, claim=None):
    """List a resource as the newest, unless it is listed: what was made to use it stays newer. No claim: for good."""
    with _turn(config) as file:
        listed = _read(file)
        claims = listed.get(resource)
        listed[resource] = [] if claim is None or claims == [] else [*(claims or []), claim]
        _write(file, listed)


def _withdraw(config, resource, claim):
    """List a resource no more if this claim is the last one, and it is not listed for good."""
    with _turn(config) as file:
        listed = _read(file)
        if listed.get(resource) == [claim]:
            del listed[resource]
        elif claim in listed.get(resource, []):
            listed[resource].remove(claim)
        _write(file, listed)


def _drop(config, resource):
    """List a resource no more."""
    with _turn(config) as file:
        listed = _read(file)
        listed.pop(resource, None)
        _write(file, listed)


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
    """Dict from `Resource` to the claims on it, oldest first; no claims are for good."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {Resource(entry["kind"], entry["name"]): list(entry.get("claims", [])) for entry in entries}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        raise PlatformError(
            f"{file} is not a manifest ({error!r}): restore it, or remove the resources by hand"
        ) from error


def _write(file, listed):
    """Rewrite the manifest at once; an empty one is no file."""
    draft = file.with_suffix(".draft")
    entries = [resource._asdict() | ({"claims": claims} if claims else {}) for resource, claims in listed.items()]
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
