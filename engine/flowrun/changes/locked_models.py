"""Compares the locked models of two versions of a spec. All changes are internal, as those of ``model`` itself are.

Other weights, another tokenizer or another vLLM may change what a flow says, but not what its callers give and get.
"""

from collections.abc import Iterator, Mapping

import msgspec

from flowrun.changes.change import Change
from flowrun.spec.model_lock import LockedModel, compare_models


def compare_locks(old: Mapping[str, LockedModel], new: Mapping[str, LockedModel]) -> Iterator[Change]:
    """Yield what changed in the lock of the models, by the keys of the lock."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before is None or after is None:
            what = "model locked" if before is None else "model no longer locked"
            yield Change(impact="internal", path=("lock", key), what=what)
            continue
        for one in compare_models(before, after):
            what = "added" if one.old is None else "removed" if one.new is None else "changed"
            was, now = (msgspec.UNSET if value is None else value for value in (one.old, one.new))
            yield Change(impact="internal", path=("lock", key, *one.path), what=what, old=was, new=now)
