"""Cloud Build, rehearsed: a build of a source that is in the bucket ends at once, and well.

Artifact Registry then knows what the tag of the image names. Of one that was not built here it knows it too, as if
somebody had built it before.
"""

import hashlib
import re

from recbandits.platforms.gcp.rehearsal.answers import done, error


def _build(documents, request):
    source = request.body["source"]["storageSource"]
    place = f"gs://{source['bucket']}/{source['object']}"
    content = documents.get(f"contents of {place}")
    if content is None:
        return error(404, f"{place} was not found")
    digests = {name: hashlib.sha256(name.encode() + content).hexdigest() for name in request.body["images"]}
    for name, digest in digests.items():
        path = re.sub(_IMAGE, r"/v1/projects/\2/locations/\1/repositories/\3/packages/\4/tags/\5", name)
        documents[path] = _tagged(path, digest)
    images = [{"name": name, "digest": f"sha256:{digest}"} for name, digest in digests.items()]
    return done("devtools.cloudbuild.v1.Build", {"status": "SUCCESS", "results": {"images": images}})


def _tag(documents, request):
    return 200, documents.get(request.path, _tagged(request.path, hashlib.sha256(request.path.encode()).hexdigest()))


def _tagged(path, digest):
    package = path.removeprefix("/v1/").partition("/tags/")[0]
    return {"name": path.removeprefix("/v1/"), "version": f"{package}/versions/sha256:{digest}"}


_IMAGE = "([^/]+)-docker.pkg.dev/([^/]+)/([^/]+)/([^/:]+):(.+)"
_PLACE = "/v1/projects/[^/]+/locations/[^/]+"
ROUTES = [
    ("POST", f"{_PLACE}/builds", _build),
    ("GET", f"{_PLACE}/repositories/[^/]+/packages/[^/]+/tags/[^/]+", _tag),
]
