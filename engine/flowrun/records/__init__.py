"""Reads result files again: their records, counts of them, those that a condition selects, one as text, all of them
as one page, and exports to train on. Memory does not grow with the number of records.
"""

from flowrun.records.record import Entry, Record, gist_of
from flowrun.records.record_files import RecordFiles
from flowrun.records.record_text import render_record
from flowrun.records.selection import Selection
from flowrun.records.table_page import render_table_page
from flowrun.records.tally import Tally

__all__ = ["Entry", "Record", "RecordFiles", "Selection", "Tally", "gist_of", "render_record", "render_table_page"]
