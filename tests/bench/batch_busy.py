"""Batches against a server that refuses what is too much for it, by the command itself."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

SERVER: Final = Path(__file__).parent / "engines" / "busy_server.py"
SPEC: Final = """
flowrun: v1
name: busy
version: 1.0.0
model: {backend: openai, name: busy, base_url: "http://127.0.0.1:PORT/v1"}
inputs: {number: {type: integer}}
messages: [{role: user, content: "{{ inputs.number }}"}]
"""


class Busy(NamedTuple):
    """The replies a second after the first tenth of the batch, and how many requests were refused."""

    rate: float
    refused: int


def busy_batch(places: int, count: int, *, retry_after: str = "", max_live: int | None = None) -> Busy:
    """Run a batch of ``count`` rows against a server that takes ``places`` requests at once."""
    arguments = [str(places), str(count), *([retry_after] if retry_after else [])]
    server = subprocess.Popen([sys.executable, str(SERVER), *arguments], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        with TemporaryDirectory() as folder:
            spec, rows, out = (Path(folder) / name for name in ("spec.yaml", "rows.jsonl", "out.jsonl"))
            spec.write_text(SPEC.replace("PORT", server.stdout.readline().strip()), encoding="utf-8")
            rows.write_text("".join(f'{{"number": {number}}}\n' for number in range(count)), encoding="utf-8")
            command = [sys.executable, "-m", "flowrun", "batch", str(spec), str(rows), "-o", str(out), "--json", "-q"]
            command += [] if max_live is None else ["--max-live", str(max_live)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
            assert json.loads(done.stdout)["outcomes"] == {"succeeded": count}
            seconds, refused = server.stdout.readline().split()
    finally:
        server.terminate()
        server.wait(timeout=60)
    return Busy((count - count // 10) / float(seconds), int(refused))
