"""Batches against a server that refuses what is too much for it, by the command itself."""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

SERVER: Final = Path(__file__).parent / "engines" / "busy_server.py"
ROWS: Final = 2000
PASSES: Final[Mapping[int, int]] = {1: 1, 2: 1, 4: 1, 8: 3, 16: 5, 32: 7, 64: 7}
"""Interleaved passes by the number of places: the fewer seconds a batch takes, the more it shows of what else runs."""
AT_ONCE: Final = 4
"""Up to so many places, where a batch takes long and hardly a processor, all modes run at the same time."""
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


class Compared(NamedTuple):
    """Medians of the passes: the best fixed ``--max-live``, and what is found without and with Retry-After."""

    fixed: Busy
    alone: Busy
    asked: Busy

    @property
    def reached(self) -> float:
        """Return what of the fixed rate the slower of the others reaches."""
        return min(self.alone.rate, self.asked.rate) / self.fixed.rate


def compare(places: int) -> Compared:
    """Run batches side by side, each against a server of so many places."""
    candidates = (places, 2 * places)
    modes: dict[str, dict[str, Any]] = {
        **{f"fixed {live}": {"max_live": live} for live in candidates},
        "alone": {},
        "asked": {"retry_after": "1"},
    }
    with ThreadPoolExecutor(len(modes) if places <= AT_ONCE else 1) as pool:
        each = [(mode, options) for _ in range(PASSES[places]) for mode, options in modes.items()]
        times = list(pool.map(lambda one: busy_batch(places, ROWS, **one[1]), each))
    medians = {mode: _median(times[index :: len(modes)]) for index, mode in enumerate(modes)}
    return Compared(
        fixed=max(medians[f"fixed {live}"] for live in candidates), alone=medians["alone"], asked=medians["asked"]
    )


def _median(times: list[Busy]) -> Busy:
    return Busy(statistics.median(time.rate for time in times), statistics.median_low(time.refused for time in times))


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
