"""Engine overhead a state transition: flowrun beside a loop written by hand and LangGraph, which has its own venv."""

import subprocess
import sys
from pathlib import Path

_ENGINES = Path(__file__).parent / "engines"
_PEERS = Path(__file__).parents[2] / ".venv" / "bench-langgraph"
_LANGGRAPH = "langgraph==1.2.22"
_ROUNDS = (1, 10, 100, 400)
_LIVE = 1000
_PASSES = 3
_SECONDS = 1.0


def main() -> None:
    """Print the table."""
    pythons = {
        "floor": Path(sys.executable),
        "flowrun_spec": Path(sys.executable),
        "langgraph_agent": _langgraph_python(),
    }
    cases = [(f"1 run, {rounds} rounds", rounds, 1) for rounds in _ROUNDS] + [(f"{_LIVE} runs, 10 rounds", 10, _LIVE)]
    print(f"\nEngine overhead, microseconds a transition (least of {_PASSES} interleaved passes)\n")
    print(f"{'':20} {'floor':>8} {'flowrun':>8} {'LangGraph':>10}   flowrun/floor  LangGraph/flowrun")
    for label, rounds, live in cases:
        best = dict.fromkeys(pythons, float("inf"))
        for _ in range(_PASSES):
            for engine, python in pythons.items():
                best[engine] = min(best[engine], _measure(python, engine, rounds, live))
        floor, ours, theirs = best.values()
        print(f"{label:20} {floor:8.1f} {ours:8.1f} {theirs:10.0f}   {ours / floor:13.1f}  {theirs / ours:17.1f}")


def _measure(python: Path, engine: str, rounds: int, live: int) -> float:
    command = [str(python), str(_ENGINES / "measure.py"), engine, str(rounds), str(_SECONDS), str(live)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _langgraph_python() -> Path:
    python = _PEERS / "bin" / "python"
    if not (_PEERS / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(_PEERS)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", _LANGGRAPH], check=True)
        (_PEERS / "installed").touch()
    return python
