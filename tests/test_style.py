"""Budgets that keep the code readable: short files, short functions, few parameters, no drawers for odds and ends."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bigtrain"
MODULES = sorted(PACKAGE.rglob("*.py"))

MOST_FILE_LINES = 320
MOST_FUNCTION_LINES = 50
MOST_PARAMETERS = 6
DRAWERS = {"utils.py", "util.py", "misc.py", "common.py", "helpers.py", "helper.py"}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def long_functions(source: str) -> list[str]:
    """Return the functions over budget; a docstring does not count against it."""
    found = []
    for function in functions(ast.parse(source)):
        documented = ast.get_docstring(function) is not None
        first = function.body[1].lineno if documented and len(function.body) > 1 else function.lineno
        lines = (function.end_lineno or first) - first + 1
        if lines > MOST_FUNCTION_LINES:
            found.append(f"{function.name} has {lines} lines, at most {MOST_FUNCTION_LINES} are readable; split it")
    return found


def crowded_functions(source: str) -> list[str]:
    """Return the functions with too many parameters (self and cls are not counted)."""
    found = []
    for function in functions(ast.parse(source)):
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        count = sum(argument.arg not in ("self", "cls") for argument in arguments)
        if count > MOST_PARAMETERS:
            found.append(f"{function.name} has {count} parameters, at most {MOST_PARAMETERS}; pass settings instead")
    return found


@pytest.fixture(params=MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def source(request):
    """The text of each module."""
    return request.param.read_text(encoding="utf-8")


def test_files_are_short(source):
    assert len(source.splitlines()) <= MOST_FILE_LINES


def test_functions_are_short(source):
    assert long_functions(source) == []


def test_functions_have_few_parameters(source):
    assert crowded_functions(source) == []


def test_files_say_what_they_are(source):
    assert not source.strip() or ast.get_docstring(ast.parse(source))


def test_there_are_no_drawers_for_odds_and_ends():
    assert [path for path in MODULES if path.name in DRAWERS] == []


def test_budgets_are_noticed():
    body = "\n".join(f"    x = {i}" for i in range(MOST_FUNCTION_LINES))
    assert long_functions(f"def f():\n{body}\n")
    assert not long_functions(f'def f():\n    """Say\n\n    more.\n    """\n{body}\n')
    assert crowded_functions("class A:\n    def f(self, a, b, c, d, *, e, f, g): ...")
    assert not crowded_functions("class A:\n    def f(self, a, b, c, d, *, e, f): ...")
