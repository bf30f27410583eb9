"""Many runs on the same models: reads rows, writes one result line per row, and can be interrupted and restarted."""

from flowrun.batch.batch import Batch, BatchStopped, Options, run_in_this_process
from flowrun.batch.distributed.merge import Format, merge_shards, require_format
from flowrun.batch.results import Fingerprint, OnChange, Results, count_outcomes
from flowrun.batch.rows import Row, RowFile, Survey
from flowrun.batch.sinks import SHARD_ROWS, Folder, OneFile, Sink
from flowrun.runtime.meter import Meter

__all__ = [
    "SHARD_ROWS",
    "Batch",
    "BatchStopped",
    "Fingerprint",
    "Folder",
    "Format",
    "Meter",
    "OnChange",
    "OneFile",
    "Options",
    "Results",
    "Row",
    "RowFile",
    "Sink",
    "Survey",
    "count_outcomes",
    "merge_shards",
    "require_format",
    "run_in_this_process",
]
