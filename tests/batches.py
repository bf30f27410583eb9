"""What tests of ``flowrun batch`` share: the command, its rows and its results."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.records import require_record

SPEC = Path(__file__).parent / "cases" / "batch" / "spec.yaml"
MESSAGES_ADDED = (
    "out.jsonl: 2 rows succeeded without --messages before, and their results have none: --restart runs every row anew"
)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "flowrun", "batch", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", **more}


def batch(*words: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment(**environ),
        timeout=180,
        check=False,
    )


def write_rows(path: Path, numbers: range | list[int]) -> None:
    path.write_text("".join(json.dumps({"number": number}) + "\n" for number in numbers))


def results(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for result in found:
        require_record(result)
    return found


def with_messages(path: Path) -> dict[int, bool]:
    """Return which rows' results have messages."""
    return {result["row"]: bool(result.get("messages")) for result in results(path)}
