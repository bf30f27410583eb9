"""Writes the table ``checks/vllm_names.py`` from the vLLM that is installed.

Run ``python -m tests.unit.checks.write_vllm_names`` after an upgrade of vLLM, and read the difference; the test marked
``vllm`` beside this file fails until then.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from flowrun.backends.vllm.names import reasoning_parsers, tool_call_parsers
from flowrun.checks import vllm_names

TABLE: Final = Path(vllm_names.__file__)

_JSON: Final[dict[Any, str]] = {
    float: "number",
    int: "integer",
    bool: "boolean",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}

_HEAD: Final = '''"""What vLLM {version} calls its settings, as data, so that specs are checked without it.

Made by ``tests/unit/checks/write_vllm_names.py`` from the vLLM that was installed; do not edit.
"""

from collections.abc import Mapping
from typing import Final
'''


def _kinds(annotation: Any) -> list[str]:
    """Give the JSON types that a parameter takes; an object of vLLM's own is written as a mapping."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return sorted({kind for part in typing.get_args(annotation) for kind in _kinds(part)})
    return [_JSON.get(origin or annotation, "array" if "array" in str(annotation) else "object")]


def sampling_types() -> dict[str, list[str]]:
    """Give each sampling parameter of vLLM with the JSON types that it takes."""
    from vllm import SamplingParams

    parameters = inspect.signature(SamplingParams.from_optional).parameters.values()
    return {parameter.name: _kinds(parameter.annotation) for parameter in parameters}


def engine_arguments() -> list[str]:
    """Give the names of vLLM's engine arguments."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return [field.name for field in dataclasses.fields(AsyncEngineArgs)]


def table() -> str:
    """Give the module's text."""
    import vllm

    version = ".".join(vllm.__version__.split(".")[:2])
    sampling = "".join(_row(name, kinds) for name, kinds in sorted(sampling_types().items()))
    return (
        _HEAD.format(version=version)
        + "\nSAMPLING: Final[Mapping[str, tuple[str, ...]]] = {\n"
        + sampling
        + '}\n"""Sampling parameters, with the JSON types that they take."""\n'
        + _names("ENGINE", engine_arguments(), "Engine arguments.")
        + _names("TOOL_CALL_PARSERS", tool_call_parsers(), "Parsers of tool calls, by model family.")
        + _names("REASONING_PARSERS", reasoning_parsers(), "Parsers of reasoning, by model family.")
    )


def _row(name: str, kinds: list[str]) -> str:
    written = ", ".join(f'"{kind}"' for kind in kinds) + ("," if len(kinds) == 1 else "")
    return f'    "{name}": ({written}),\n'


def _names(constant: str, names: Iterable[str], doc: str) -> str:
    rows = "".join(f'        "{name}",\n' for name in sorted(set(names)))
    return f'\n{constant}: Final = frozenset(\n    {{\n{rows}    }}\n)\n"""{doc}"""\n'


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
