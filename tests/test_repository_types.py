"""Public functions carry type hints, and a type checker accepts the package."""

import ast
import re
import sys
from pathlib import Path

from tests.commands import run

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "recbandits"


def public_functions(tree):
    """Yield (name, node) of the public functions of a module and of the public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from ((f"{node.name}.{name}", method) for name, method in public_functions(node))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.match("[a-z]|__init__", node.name):
            yield node.name, node


def is_annotated(function):
    """Return whether a function has a type hint for its result and for every parameter but self and cls."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    has_result = function.returns is not None or function.name == "__init__"
    return has_result and all(each.annotation or each.arg in ("self", "cls") for each in named)


def test_public_functions_have_type_hints_of_all_parameters_and_of_the_result():
    functions = {path: public_functions(ast.parse(path.read_text(encoding="utf-8"))) for path in PACKAGE.rglob("*.py")}
    assert [(str(path), name) for path in functions for name, node in functions[path] if not is_annotated(node)] == []


def test_the_type_checker_accepts_the_package():
    run(sys.executable, "-m", "mypy", cwd=ROOT)
