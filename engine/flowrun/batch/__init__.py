"""Many runs on the same models: rows in, one result line each out, safe to interrupt and to begin again."""

from flowrun.batch.batch import Batch, BatchStopped, Options, run_by, run_here, run_name
from flowrun.batch.distributed.merge import Format, check_format, merge_parts
from flowrun.batch.meter import Meter
from flowrun.batch.results import Fingerprint, OnChange, Results, count_outcomes
from flowrun.batch.rows import Row, RowFile, Survey
from flowrun.batch.sinks import SHARD_ROWS, Folder, OneFile, Sink

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
    "check_format",
    "count_outcomes",
    "merge_parts",
    "run_by",
    "run_here",
    "run_name",
]
