"""What the rehearsed services have in common: how a request arrives and what an answer is."""

from typing import NamedTuple


class Request(NamedTuple):
    """One request as it arrived.

    Attributes:
      method: of HTTP.
      path: without the query.
      query: dict of texts; values of a repeated key are joined by commas.
      body: the JSON document, or the one that describes an upload; else an empty dict.
      content: bytes of the body, or of what is uploaded.
    """

    method: str
    path: str
    query: dict
    body: dict
    content: bytes = b""


def error(status, message, reason=""):
    """The answer of a service that refuses: (status, document).

    Args:
      status: of HTTP.
      message: text for people.
      reason: code for machines, such as "RESOURCE_EXHAUSTED".
    """
    return status, {"error": {"code": status, "message": message} | ({"status": reason} if reason else {})}


def done(kind, document=None, name="operations/1"):
    """The answer (200, document) with a long-running operation that has ended.

    Args:
      kind: of its result, such as "protobuf.Empty".
      document: the result.
      name: of the operation.
    """
    response = {"@type": f"type.googleapis.com/google.{kind}"} | (document or {})
    return 200, {"name": name, "done": True, "response": response}


def look(documents, request):
    """Answer GET with the document under the path."""
    if request.path not in documents:
        return error(404, f"{request.path} was not found")
    return 200, documents[request.path]


def keep(documents, path, document):
    """Keep a document under a new path; the answer that refuses one that is taken, or None."""
    if path in documents:
        return error(409, f"{path} exists already")
    documents[path] = document
    return None


def drop(documents, request):
    """Answer DELETE of the document under the path."""
    if documents.pop(request.path, None) is None:
        return error(404, f"{request.path} was not found")
    return 200, {}
