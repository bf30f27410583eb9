"""The number of kills, and how they are shared out; the seed; and what a failure says about both.

``FLOWRUN_TORTURE_KILLS`` is the number of all kills (``make torture``: 1,000), ``FLOWRUN_TORTURE_SEED`` the seed of
the disturbances, ``FLOWRUN_TORTURE_WORLD`` the first world of a test of command lines, to repeat a late one at once.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

KILLS: Final = int(os.environ.get("FLOWRUN_TORTURE_KILLS", "50"))
SEED: Final = int(os.environ.get("FLOWRUN_TORTURE_SEED", "1"))
FIRST_WORLD: Final = int(os.environ.get("FLOWRUN_TORTURE_WORLD", "0"))

_SHARES: Final = {"api": 60, "command lines": 24, "batches": 10, "delays": 6}
assert sum(_SHARES.values()) == 100


def kills_of(part: str) -> int:
    """Return the number of kills of a part of the tests."""
    return KILLS * _SHARES[part] // 100


@contextmanager
def new_world(part: str, number: int) -> Iterator[tuple[Path, random.Random]]:
    """Yield an empty folder and the chance of a world. A failure keeps the folder, and says how to repeat it."""
    folder = Path(tempfile.mkdtemp(prefix=f"flowrun-torture-{SEED}-{number}-"))
    try:
        yield folder, random.Random(f"{SEED} {part} {number}")
    except BaseException as exc:
        exc.add_note(f"FLOWRUN_TORTURE_SEED={SEED} FLOWRUN_TORTURE_WORLD={number} repeats it; see {folder}")
        raise
    shutil.rmtree(folder)
