"""The public names: lazy, complete, and few."""

import ast
import subprocess
import sys
from pathlib import Path

import flowrun

SOURCE = Path(flowrun.__file__).read_text()


def imported_for_types() -> set[str]:
    """Return the names that the package imports for type checkers."""
    (block,) = (node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_all_public_names_exist_and_no_others() -> None:
    assert len(flowrun.__all__) == len(set(flowrun.__all__)) == 37
    assert sorted(flowrun.__all__) == flowrun.__all__
    assert imported_for_types() == set(flowrun.__all__)
    for name in flowrun.__all__:
        assert getattr(flowrun, name) is not None, name
    assert set(flowrun.__all__) <= set(dir(flowrun))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(flowrun, "nothing")
    assert not hasattr(flowrun.testing, "nothing")


def test_the_import_loads_no_other_module_of_flowrun_and_no_dependency() -> None:
    code = "import sys; before = set(sys.modules); import flowrun; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert {name for name in loaded if name.startswith("flowrun")} == {"flowrun", "flowrun.version"}
    assert not loaded & {"msgspec", "jinja2", "yaml", "jsonschema", "networkx", "openai", "asyncio"}
