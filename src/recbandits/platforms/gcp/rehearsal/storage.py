"""Cloud Storage, rehearsed: buckets, and objects with what they contain."""

import base64
import hashlib

from recbandits.platforms.gcp.rehearsal.answers import drop, error, keep, look
from recbandits.platforms.gcp.rehearsal.project import PROJECT_NUMBER


def put(documents, bucket, name, content):
    """Keep an object; gives its document.

    Args:
      documents: of the `Rehearsal`.
      bucket: its name.
      name: of the object.
      content: bytes.
    """
    path = f"/storage/v1/b/{bucket}/o/{name}"
    digest = base64.b64encode(hashlib.md5(content).digest()).decode()
    documents[path] = {"name": name, "bucket": bucket, "size": str(len(content)), "md5Hash": digest, "generation": "1"}
    documents[f"contents of gs://{bucket}/{name}"] = content
    return documents[path]


def _make_bucket(documents, request):
    document = request.body | {"projectNumber": PROJECT_NUMBER}
    return keep(documents, f"{request.path}/{request.body['name']}", document) or (200, request.body)


def _list(documents, request):
    begin = f"{request.path}/{request.query.get('prefix', '')}"
    return 200, {"items": [document for path, document in documents.items() if path.startswith(begin)]}


def _upload(documents, request, bucket):
    name = request.query.get("name") or request.body["name"]
    if request.query["uploadType"] == "resumable":
        return 200, {}, {"Location": f"{request.path}?uploadType=resumable&name={name}"}
    return 200, put(documents, bucket, name, request.content)


def _finish_upload(documents, request, bucket):
    return 200, put(documents, bucket, request.query["name"], request.content)


def _download(documents, _, bucket, name):
    content = documents.get(f"contents of gs://{bucket}/{name}")
    return error(404, f"gs://{bucket}/{name} was not found") if content is None else (200, content)


def _drop(documents, request, bucket, name):
    documents.pop(f"contents of gs://{bucket}/{name}", None)
    return drop(documents, request)


ROUTES = [
    ("POST", r"/storage/v1/b", _make_bucket),
    ("GET", r"/storage/v1/b/[^/]+", look),
    ("DELETE", r"/storage/v1/b/[^/]+", drop),
    ("GET", r"/storage/v1/b/[^/]+/o", _list),
    ("GET", r"/storage/v1/b/[^/]+/o/.+", look),
    ("DELETE", r"/storage/v1/b/([^/]+)/o/(.+)", _drop),
    ("POST", r"/upload/storage/v1/b/([^/]+)/o", _upload),
    ("PUT", r"/upload/storage/v1/b/([^/]+)/o", _finish_upload),
    ("GET", r"/download/storage/v1/b/([^/]+)/o/(.+)", _download),
]
