"""Example users, movies and genres of 00 to 03 come from the data: a set may have other ids, titles or no genres."""

import ast
import re
from functools import cache

import pytest

from recbandits.data import synthetic
from recbandits.data.tables import GENRES
from tools.notebooks import find_notebooks, read

NOTEBOOKS = find_notebooks(patterns="00-* 01-*/* 02-*/* 03-*/*")
KIND = r"(?:users?|visitors?|movies?|items?)"
ID_NAME = re.compile(rf"{KIND}|(?:{KIND}_ids?)", re.IGNORECASE)
IN_JSON = re.compile(rf'"(?:{KIND}_ids?|candidates)"\s*:\s*\[?\s*"\d')  # of a request or an event: ids are text
TAKES_IDS = {"contexts", "context_of", "encode_users", "encode_movies", "observation", "recommend"}


def is_id(node):
    """Tell whether an expression is an integer, a text of digits, or a sequence of them."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return bool(node.elts) and all(map(is_id, node.elts))
    value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
    return type(value) is int or (isinstance(value, str) and value.isdigit())


@cache
def known_texts():
    """Return the genres, and the titles of the synthetic set, which is executed where MovieLens is missing."""
    return ({*GENRES} | {*synthetic.generate().movies["title"]}) - {"unknown"}  # a genre, but also a word


def literals(source, texts=()):
    """List (line, literal) of example ids, titles and genres in code.

    An id is an integer, a text of digits or a sequence of them that is bound to, compared with or looped over by the
    name of a user or movie, given to an argument of such a name or to a function that takes ids, used as a row of
    `.loc[...]`, or in an Index or a JSON text of that name. A number of candidates is none, a sequence of them is.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        pairs = []
        match node:
            case ast.Constant(value=str(text)) if text in texts or IN_JSON.search(text):
                found.append((node.lineno, text))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pairs = [(name, value)]
            case (
                ast.For(target=ast.Name(id=name), iter=value) | ast.comprehension(target=ast.Name(id=name), iter=value)
            ):
                pairs = [(name, value)]
            case ast.keyword(arg=str(name), value=value):
                pairs = [(name, value)]
            case ast.Dict(keys=keys, values=values):
                pairs = [(key.value, value) for key, value in zip(keys, values, strict=True) if is_text(key)]
            case ast.Compare(left=left, comparators=[right]):
                pairs = [(name_of(left), right), (name_of(right), left)]
            case ast.Subscript(value=ast.Attribute(attr="loc"), slice=index):
                rows = index.elts[0] if isinstance(index, ast.Tuple) else index
                pairs = [("user", rows)]
            case ast.Call(func=func, args=args) if name_of(func) in TAKES_IDS:
                pairs = [("user", argument) for argument in args]
            case ast.Call(func=func, args=args, keywords=keywords) if name_of(func) == "Index":
                names = [word.value.value for word in keywords if word.arg == "name" and is_text(word.value)]
                pairs = [(name, argument) for name in names for argument in args]
        for name, value in pairs:
            is_list = name.lower() == "candidates" and not isinstance(value, ast.Constant)
            if (is_list or ID_NAME.fullmatch(name)) and is_id(value):
                found.append((value.lineno, ast.unparse(value)))
    return sorted(set(found))


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def name_of(node):
    return getattr(node, "id", getattr(node, "attr", "")) or ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("USER = 42", ["42"]),
        ("NUM_ITEMS = 20; user_count = 3; CANDIDATES = 10; users = data.users.index[:3]", []),
        ("Interaction(user_id='7', candidates=('50', '172'))", ["'7'", "('50', '172')"]),
        ("for user in (1, 42, 405): pass", ["(1, 42, 405)"]),
        ("[ask(user) for user in [7]]", ["[7]"]),
        ("pd.Index([1, 42], name='user_id')", ["[1, 42]"]),
        ("pd.RangeIndex(1, 4, name='rank'), pd.Index([1, 2], name='slot')", []),
        ("ratings[ratings['x'].eq(1) & (user_id == 7)]", ["7"]),
        ("users.loc[7], movies.loc[[50, 1], 'title']", ["7", "[50, 1]"]),
        ("users.iloc[7], table.loc[ids]", []),
        ("policy.recommend({}, k=3, user_id='7'), features.contexts([1, 5000])", ["'7'", "[1, 5000]"]),
        ("{'user_id': 7, 'k': 3}", ["7"]),
        ("""request = '{"user": "7"}', '{"candidates": ["50"]}'""", ['{"candidates": ["50"]}']),
        ("for genre in ('Drama', 'unknown'): pass", ["Drama"]),
    ],
)
def test_literals_are_found_and_numbers_of_other_things_are_not(source, expected):
    assert [literal for _, literal in literals(source, {"Drama"})] == expected


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_example_users_movies_and_genres_come_from_the_data(path):
    cells = enumerate(read(path).cells)
    code = [(number, cell.source) for number, cell in cells if cell.cell_type == "code"]
    found = {number: literals(source, known_texts()) for number, source in code}
    found = {number: each for number, each in found.items() if each}
    assert found == {}
