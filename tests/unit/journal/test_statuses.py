"""Every status that the machine gives a run can be stored and listed."""

from typing import get_args

from flowrun.core.run import Draft
from flowrun.journal.rows import STATUSES


def test_the_journal_knows_every_status_of_a_run() -> None:
    assert set(get_args(Draft.__annotations__["status"])) - {"new"} <= set(STATUSES)
