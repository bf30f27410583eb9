"""Packages of npm that tests run, pinned by a lock file each, and installed once a checkout."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def install_packages(folder: Path) -> Path:
    """Install what the ``package.json`` of a folder names, and return where; skip the test where it cannot be had."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    files = [folder / "package.json", folder / "package-lock.json"]
    digest = hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=8).hexdigest()
    installed = ROOT / ".cache" / f"{folder.name}-{digest}"
    if not (installed / "installed").exists():
        installed.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, installed)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
        done = subprocess.run(command, cwd=installed, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm cannot install {folder.name}/package.json: {done.stderr.strip()[-200:]}")
        (installed / "installed").touch()
    return installed
