"""Python's garbage collector in flowrun's own processes. Where flowrun is a library, the collector is its host's.

A run creates many small objects that live as long as the run. With the default thresholds, the collector takes a
quarter of the time to find that none of them is garbage; and each time that it looks through all that a program with
vLLM has loaded, 600,000 objects, everything stands still for 0.3 s.
"""

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 20, 50)

_calm = False  # whether this process is flowrun's own, by ``calm_collector``
_skips = False  # whether the collector skips what an engine's start has loaded


def collect_less() -> None:
    """Make the collector run less often: while a program loads, hardly anything is garbage."""
    gc.set_threshold(*_THRESHOLDS)


def calm_collector() -> None:
    """Make the collector run less often, and skip the objects that are loaded now."""
    global _calm
    _calm = True
    gc.collect()
    gc.freeze()
    collect_less()


def skip_loaded() -> None:
    """Make the collector skip what an engine's start has loaded; without ``calm_collector``, this does nothing.

    What an earlier engine has left behind is collected, which takes 0.3 s; the first start costs nothing.
    """
    global _skips
    if not _calm:
        return
    if _skips:
        gc.unfreeze()
        gc.collect()
    gc.freeze()
    _skips = True
