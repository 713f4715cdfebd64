"""Public functions carry type hints, and a type checker accepts the package."""

import ast
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
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name, node


def test_public_functions_say_what_they_return():
    functions = {path: public_functions(ast.parse(path.read_text(encoding="utf-8"))) for path in PACKAGE.rglob("*.py")}
    assert [(str(path), name) for path in functions for name, node in functions[path] if node.returns is None] == []


def test_the_type_checker_accepts_the_package():
    run(sys.executable, "-m", "mypy", cwd=ROOT)
