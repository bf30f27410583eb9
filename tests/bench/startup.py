"""Start-up: full processes of the command line, compared with bare imports of their dependencies.

What ``validate`` costs over its own imports is shown too. Without bytecode (PYTHONDONTWRITEBYTECODE, and no .pyc yet)
each process compiles flowrun, which takes a third of its time.
"""

import subprocess
import sys
import time
from pathlib import Path

_BIN = Path(sys.executable).parent
_PASSES = 15

_VALIDATE = [str(_BIN / "flowrun"), "validate", "specs/weather.yaml"]
_LIST_IMPORTS = """
import sys
from flowrun.cli import app
try:
    app.main(sys.argv[1:], standalone_mode=False)
except SystemExit:
    pass
print(*[name for name in sys.modules if name != "__main__"])
"""
_IMPORT = """
import sys
from contextlib import suppress
from importlib import import_module
for name in sys.argv[1:]:
    with suppress(ImportError):
        import_module(name)
"""

_IMPORT_CLICK = [sys.executable, "-c", "import click"]
_IMPORT_ALL = [sys.executable, "-c", "import yaml, jsonschema, jinja2, networkx, click"]
_PAIRS = {
    "flowrun --help": ([str(_BIN / "flowrun"), "--help"], _IMPORT_CLICK, 2.0),
    "flowrun validate specs/weather.yaml": (_VALIDATE, _IMPORT_ALL, 1.5),
}


def main() -> None:
    """Print the table."""
    print(f"\nWhole processes, milliseconds (least and median of {_PASSES} interleaved passes)\n")
    print(f"{'':38} {'least':>6} {'median':>7}   {'bare':>6} {'median':>7}   ratio   aim")
    own = _own_imports()
    over_own = {
        "  over its own imports": (_VALIDATE, own, 1.5),
        "  --no-import": ([*_VALIDATE, "--no-import"], own, 1.1),
    }
    for label, (command, bare, aim) in (_PAIRS | over_own).items():
        ours, theirs = [], []
        for _ in range(_PASSES):
            ours.append(_milliseconds(command))
            theirs.append(_milliseconds(bare))
        ours.sort()
        theirs.sort()
        middle = _PASSES // 2
        figures = f"{ours[0]:6.0f} {ours[middle]:7.0f}   {theirs[0]:6.0f} {theirs[middle]:7.0f}"
        print(f"{label:38} {figures}   {ours[0] / theirs[0]:5.2f}  {aim:4.1f}")


def _own_imports() -> list[str]:
    """Return a command that imports what ``validate --no-import`` does, and nothing else."""
    listing = [sys.executable, "-c", _LIST_IMPORTS, *_VALIDATE[1:], "--no-import"]
    names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()
    return [sys.executable, "-c", _IMPORT, *names]


def _milliseconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return (time.perf_counter() - begun) * 1e3
