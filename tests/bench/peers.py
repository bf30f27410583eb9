"""The virtual environments of peers, created at first use with the requested versions."""

import subprocess
import sys
from pathlib import Path

_VENVS = Path(__file__).parents[2] / ".venv"


def python_for(peer: str, *packages: str) -> Path:
    """Return the Python executable of a peer with ``packages`` (``name==version``)."""
    venv = _VENVS / f"bench-{peer}"
    python, stamp = venv / "bin" / "python", venv / "installed"
    installed = stamp.read_text().split() if stamp.exists() else []
    if missing := [package for package in packages if package not in installed]:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *missing], check=True)
        stamp.write_text("\n".join([*installed, *missing]))
    return python
