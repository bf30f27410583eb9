"""A delay of an hour goes on where it was, however often the command line that waits for it is killed.

Nobody waits an hour here: some minutes pass at a time, because the events of the journal are made that much older while
no process lives. A delay that began anew would never end, and its command line would hang.
"""

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Final, NamedTuple

import pytest

from flowrun.core.events import Failed, Recorded, Slept
from tests.torture.budget import FIRST_WORLD, kills_of, new_world
from tests.torture.command_lines import JOURNAL, Doom
from tests.torture.person import Person, Planned

HOUR: Final = 3600.0

pytestmark = pytest.mark.slow


class Nap(NamedTuple):
    """The times at which a delay began and ended, as the journal has them."""

    began: float | None
    ended: float | None


def nap_of(events: list[Recorded]) -> Nap:
    began = next((one.at for one in events if isinstance(one.event, Failed)), None)
    return Nap(began, next((one.at for one in events if isinstance(one.event, Slept)), None))


def pass_time(journal: Path, seconds: float) -> None:
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE events SET at = at - ?", (seconds,))
        connection.execute("UPDATE runs SET created = created - ?, ended = ended - ?", (seconds, seconds))


def sleep_an_hour(folder: Path, chance: random.Random) -> int:
    """Run a flow that sleeps for an hour, kill it again and again, and return the number of kills."""
    plan = Planned("patient", 1)
    person = Person(folder, chance, [plan], lambda: True)
    passed = 0.0
    while not person.has_ended(plan):
        nap = Nap(None, None) if plan.run is None else nap_of(person.judge.history.events(plan.run))
        is_over = nap.ended is not None or passed >= HOUR
        patience = 1.0 + 0.1 * person.terminal.lives
        doom = Doom(1, chance.uniform(0.0, 0.4 * patience), chance.choice((SIGKILL, SIGKILL, SIGTERM)))
        line = person.next_lines(plan)[0]._replace(doom=None if is_over and chance.random() < 0.6 else doom)
        person.act(line)
        if nap.began is not None and nap.ended is None:
            seconds = chance.uniform(0.15 * HOUR, 0.5 * HOUR)
            pass_time(folder / JOURNAL, seconds)
            passed += seconds
            person.judge.judge()
    nap = nap_of(person.judge.history.events(str(plan.run)))
    assert nap.began is not None
    assert nap.ended is not None
    assert nap.ended - nap.began >= HOUR
    assert person.judge.output(str(plan.run)) == {"edition": 1, "settled": 15}
    return person.terminal.kills


def test_an_hour_passes_while_its_command_lines_are_killed() -> None:
    kills, number = 0, FIRST_WORLD
    while kills < kills_of("delays"):
        with new_world("delays", number) as (folder, chance):
            kills += sleep_an_hour(folder, chance)
        number += 1
    print(f"{number - FIRST_WORLD} runs, {kills} kills")
