"""Command lines of flowrun are killed at any moment, and others go on, until all runs of a folder have ended.

A world has runs that wait, are answered twice, have children side by side, fail and are caught, are cancelled, and know
secrets. A person starts, resumes, answers, resolves and cancels them; the specs change meanwhile, and the events of one
run are damaged. What the tools really did is compared with what is stored and printed after each command line.
"""

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from flowrun.spec.model import JSON
from tests.torture.budget import FIRST_WORLD, kills_of, new_world
from tests.torture.command_judge import CommandJudge
from tests.torture.command_lines import Line
from tests.torture.person import ALL, Person, Planned

FLOWS: Final = ("order", "family", "caught", "doomed", "secret", "order")

pytestmark = pytest.mark.slow


def part(edition: int, n: int) -> JSON:
    return [edition, 3 * n + 1, 5 * n + 2]


def question(n: int, answer: JSON) -> JSON:
    return [7 * n + 3, answer, 3 * n + 1]


def order_output(plan: Planned, answers: Mapping[str, JSON]) -> JSON:
    [answer] = answers.values()
    return {"edition": plan.edition, "said": "thanks", "answer": answer, "sent": 3 * plan.n + 1}


def family_output(plan: Planned, answers: Mapping[str, JSON]) -> JSON:
    edition, n = plan.edition, plan.n
    by_child = {name.partition(".")[2]: answer for name, answer in answers.items()}
    return {
        "edition": edition,
        "several": {
            "left": question(n + 1, by_child["1.0/2/0"]),
            "right": question(n + 2, by_child["1.1/2/0"]),
            "work": 11 * n + 1,
        },
        "many": [part(edition, n + more) for more in (10, 20, 30)],
        "one": part(edition, n + 40),
    }


def caught_output(plan: Planned, answers: Mapping[str, JSON]) -> JSON:
    errors: JSON = ["tool.failed", "backend.unavailable", "flow.failed"]
    return {"edition": plan.edition, "settled": 13 * plan.n + 2, "errors": errors}


def secret_output(plan: Planned, answers: Mapping[str, JSON]) -> JSON:
    [answer] = answers.values()
    return {"edition": plan.edition, "told": f"{plan.n}: ${{SHOP_TOKEN}}", "answer": answer}


EXPECTED: Final[Mapping[str, Callable[[Planned, Mapping[str, JSON]], JSON]]] = {
    "order": order_output,
    "family": family_output,
    "caught": caught_output,
    "secret": secret_output,
}


def assert_ended_well(plan: Planned, judge: CommandJudge) -> None:
    assert plan.run is not None
    answers = judge.answers(plan.run)
    if plan.flow == "doomed":
        family = {name: row.status for name, row in judge.rows().items() if name.startswith(f"{plan.run}.")}
        outcome = judge.run(plan.run).outcome
        assert outcome is not None
        assert outcome.status == "cancelled"
        assert set(family.values()) <= {"cancelled", "succeeded"}
        assert "succeeded" not in {status for name, status in family.items() if name.endswith(".1.0")}
        return
    assert judge.output(plan.run) == EXPECTED[plan.flow](plan, answers)


def assert_world_ended_well(person: Person) -> None:
    judge, damaged = person.judge, person.victim is not None
    for plan in person.plans:
        if plan is not person.victim:
            assert_ended_well(plan, judge)
            person.check_answers(plan)
    person.see_list()
    [check] = person.act(Line(("journal", "check")))
    assert check.code == int(damaged)
    [nothing] = person.act(Line(ALL))
    assert damaged or (nothing.code, nothing.err) == (0, "no run was interrupted, waits or sleeps\n")
    judge.judge_secrets()


def test_runs_of_killed_command_lines_end_as_they_should() -> None:
    kills = terminations = lives = 0
    number = FIRST_WORLD
    while kills < kills_of("command lines"):
        before = kills
        with new_world("command lines", number) as (folder, chance):
            plans = [Planned(flow, 100 * index) for index, flow in enumerate(FLOWS, 1)]
            person = Person(folder, chance, plans, lambda: before + person.terminal.kills < kills_of("command lines"))  # noqa: B023
            person.live()
            assert_world_ended_well(person)
        kills += person.terminal.kills
        terminations += person.terminal.terminations
        lives += person.terminal.lives
        number += 1
    print(f"{number - FIRST_WORLD} worlds, {lives} command lines, {kills} kills, {terminations} times SIGTERM")
