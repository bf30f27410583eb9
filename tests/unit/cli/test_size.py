"""The command line only reads options and calls what a Python user would call, so its functions are short."""

import ast
from pathlib import Path

import pytest

MODULES = sorted((Path(__file__).parents[3] / "engine" / "flowrun" / "cli").glob("*.py"))
MAX_LINES = 40
"""Lines of a function from its ``def`` to its end, with the docstring."""


def sizes_of(source: str) -> dict[str, int]:
    functions = (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_no_function_of_the_command_line_is_long(module: Path) -> None:
    sizes = sizes_of(module.read_text(encoding="utf-8"))
    assert {name: lines for name, lines in sizes.items() if lines > MAX_LINES} == {}


def test_lines_are_counted_without_decorators_and_with_docstrings() -> None:
    assert sizes_of('@first\n@second\nasync def one():\n    """Say."""\n    return 1\n\n\nX = 1\n') == {"one": 3}
