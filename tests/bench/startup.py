"""Start-up: full processes of the command line, compared with bare imports of their dependencies."""

import subprocess
import sys
import time
from pathlib import Path

_BIN = Path(sys.executable).parent
_PASSES = 15

_IMPORT_CLICK = [sys.executable, "-c", "import click"]
_IMPORT_ALL = [sys.executable, "-c", "import yaml, jsonschema, jinja2, networkx, click"]
_PAIRS = {
    "flowrun --help": ([str(_BIN / "flowrun"), "--help"], _IMPORT_CLICK, 2.0),
    "flowrun validate specs/weather.yaml": (
        [str(_BIN / "flowrun"), "validate", "specs/weather.yaml"],
        _IMPORT_ALL,
        1.5,
    ),
}


def main() -> None:
    """Print the table."""
    print(f"\nWhole processes, milliseconds (least and median of {_PASSES} interleaved passes)\n")
    print(f"{'':38} {'least':>6} {'median':>7}   {'bare':>6} {'median':>7}   ratio   aim")
    for label, (command, bare, aim) in _PAIRS.items():
        ours, theirs = [], []
        for _ in range(_PASSES):
            ours.append(_milliseconds(command))
            theirs.append(_milliseconds(bare))
        ours.sort()
        theirs.sort()
        middle = _PASSES // 2
        figures = f"{ours[0]:6.0f} {ours[middle]:7.0f}   {theirs[0]:6.0f} {theirs[middle]:7.0f}"
        print(f"{label:38} {figures}   {ours[0] / theirs[0]:5.2f}  {aim:4.1f}")


def _milliseconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return (time.perf_counter() - begun) * 1e3
