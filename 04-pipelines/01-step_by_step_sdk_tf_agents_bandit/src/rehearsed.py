"""A rehearsed request as text: what Google Cloud would be asked, short enough to be read."""

import json
import re

_PLACE = re.compile(r"^/v1/projects/[^/]+/locations/[^/]+/")
_WIDTH = 118  # letters


def line(request):
    """Method and path of a `platforms.gcp.rehearsal.Request`, without project and region."""
    return f"{request.method:6} {_PLACE.sub('', request.path)}"


def lines(request):
    """The same, and below it the body, a line for each field by name: without labels, long values cut."""
    fields = sorted(_fields(request.body))  # clients send maps in any order
    return "\n".join([line(request), *(_cut(f"         {name}: {value}") for name, value in fields)])


def _fields(body, above=""):
    """Pairs of dotted name and text."""
    for name, value in body.items():
        if isinstance(value, dict):
            yield from () if name == "labels" else _fields(value, f"{above}{name}.")
        else:
            yield above + name, value if isinstance(value, str) else json.dumps(value)


def _cut(text):
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 2]} …"
