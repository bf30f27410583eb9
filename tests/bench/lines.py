"""Five flows in lines: the specs, and programs in LangGraph that do the same."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

FLOWS: Final = ("approval", "ask_person", "checked_query", "handover", "supervisor")
SPECS: Final = Path(__file__).parents[2] / "specs"
_PROGRAMS: Final = Path(__file__).parent / "engines" / "langgraph_flows"

_SET_UP: Final = {"model", "sampling", "profiles"}
"""The keys of a spec that set its model up, which a program gets as an argument."""


def main() -> None:
    """Print the table."""
    print("\n".join(table()))


def table() -> Iterator[str]:
    """Yield the lines of the table in docs/langgraph.md; characters are counted without indentation."""
    yield "| flow | spec: lines | characters | LangGraph: lines | of these imports | characters |"
    yield "|---|--:|--:|--:|--:|--:|"
    rows = {f"`{name}`": _count(name) for name in FLOWS}
    rows["all"] = tuple(map(sum, zip(*rows.values(), strict=True)))
    for name, figures in rows.items():
        yield f"| {name} | " + " | ".join(f"{figure:,}" for figure in figures) + " |"


def _count(name: str) -> tuple[int, ...]:
    spec = list(_without_set_up(_written(SPECS / f"{name}.yaml")))
    program = _written(_PROGRAMS / f"{name}.py")
    imports = [line for line in program if line.startswith(("import ", "from "))]
    return len(spec), _characters(spec), len(program), len(imports), _characters(program)


def _written(file: Path) -> list[str]:
    """Return a file's lines that are neither blank nor a comment."""
    return [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _without_set_up(lines: Iterable[str]) -> Iterator[str]:
    key = ""
    for line in lines:
        if found := re.match(r"\w+(?=:)", line):
            key = found[0]
        if key not in _SET_UP:
            yield line


def _characters(lines: Iterable[str]) -> int:
    return sum(len(line.strip()) for line in lines)


if __name__ == "__main__":
    main()
