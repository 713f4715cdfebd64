"""Requests are told in full but for labels, and what is too long to be read."""

from recbandits.platforms.gcp.rehearsal import Request, rehearse
from src.rehearsed import line, lines

from recbandits.config import Config


def test_a_request_is_told_without_place_and_labels():
    (asked,) = rehearse(Config(version="v2"), lambda cloud: cloud.endpoints.create())
    assert asked.body["labels"]["version"] == "v2"
    assert line(asked) == "POST   endpoints"
    assert lines(asked) == "POST   endpoints\n         displayName: recbandits-v2"


def test_fields_are_named_by_their_way_in_order_and_cut_where_they_are_long():
    """118 letters: nine blanks, `a.b: `, 102 of the value, a blank and the sign for more."""
    request = Request("PATCH", "/v1/projects/p/locations/r/things/1", {}, {"a": {"c": [1], "b": "x" * 200}, "d": {}})
    assert lines(request).splitlines() == [
        "PATCH  things/1",
        "         a.b: " + "x" * 102 + " …",
        "         a.c: [1]",
    ]


def test_what_has_no_body_is_one_line():
    assert lines(Request("DELETE", "/storage/v1/b/bucket", {}, {})) == "DELETE /storage/v1/b/bucket"
