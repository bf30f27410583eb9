"""Engine overhead per state transition: flowrun, a loop written by hand, Apache Burr and LangGraph.

The peers have venvs of their own, with the versions named here.
"""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.bench.peers import python_for

_ENGINES = Path(__file__).parent / "engines"
_PEERS = {"burr_agent": "apache-burr==0.43.0", "langgraph_agent": "langgraph==1.2.22"}
_COLUMNS = {"floor": "floor", "flowrun_spec": "flowrun", "burr_agent": "Burr", "langgraph_agent": "LangGraph"}
_ROUNDS = (1, 10, 100, 400)
_LIVE = 1000
_PASSES = 3
_SECONDS = 1.0


def main() -> None:
    """Print the table."""
    pythons = {engine: _python(engine) for engine in _COLUMNS}
    cases = [(f"1 run, {rounds} rounds", rounds, 1) for rounds in _ROUNDS] + [(f"{_LIVE} runs, 10 rounds", 10, _LIVE)]
    measured = {label: _least(pythons, rounds, live) for label, rounds, live in cases}
    print(f"\nEngine overhead, microseconds a transition (least of {_PASSES} interleaved passes)\n")
    print(f"{'':20}{_row(_COLUMNS.values())}{'flowrun/floor':>15}{'Burr/flowrun':>14}{'LangGraph/flowrun':>19}")
    for label, figures in measured.items():
        floor, ours, burr, langgraph = figures
        ratios = f"{ours / floor:15.1f}{burr / ours:14.1f}{langgraph / ours:19.1f}"
        print(f"{label:20}{_row(f'{each:.1f}' for each in figures)}{ratios}")
    print(f"\nTransitions a second\n\n{'':20}{_row(_COLUMNS.values())}")
    for label, figures in measured.items():
        print(f"{label:20}{_row(f'{1e6 / each:,.0f}' for each in figures)}")


def _row(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>11}" for cell in cells)


def _least(pythons: Mapping[str, Path], rounds: int, live: int) -> tuple[float, ...]:
    """Measure all engines in turns; return the least time of each."""
    passes = [[_measure(python, each, rounds, live) for each, python in pythons.items()] for _ in range(_PASSES)]
    return tuple(map(min, zip(*passes, strict=True)))


def _measure(python: Path, engine: str, rounds: int, live: int) -> float:
    command = [str(python), str(_ENGINES / "measure.py"), engine, str(rounds), str(_SECONDS), str(live)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _python(engine: str) -> Path:
    """Return the Python executable of an engine; create a peer's environment if it is missing."""
    package = _PEERS.get(engine)
    return python_for(engine.removesuffix("_agent"), package) if package else Path(sys.executable)
