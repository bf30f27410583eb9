"""The report of an evaluation in a real browser: scores above, rows that changed first, what the other version said."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowrun.batch.rows import Row
from flowrun.evaluation.eval_file import ConditionScore, EvalFile, Gate
from flowrun.evaluation.report import render_report
from flowrun.evaluation.scored_side import Rows, SideRecords, write_scored
from flowrun.evaluation.scoring import Scored
from flowrun.evaluation.summary import summarize
from flowrun.spec import Document
from tests.browsing import PHONE, needs_browser, work_on
from tests.records import record_of, said_messages, write_records

pytest.importorskip("scipy", reason="scipy (the extra eval) is not installed")

pytestmark = needs_browser
NUMBERS = range(1, 301)
ROWS: Rows = {str(row): Row(number=row, id=row, inputs={"question": f"How hot is it in {row}?"}) for row in NUMBERS}


def write_side(folder: Path, name: str, degrees: dict[int, int]) -> Any:
    """Write the records of a side whose answers name these degrees, scored by whether these are the row's number."""

    def record(row: int) -> dict[str, Any]:
        answer = f"It is <b>{degrees.get(row, row)}</b> degrees."
        return record_of(row, output={"answer": answer}, messages=said_messages("How hot?", "Dallas", answer))

    made = write_records(folder / f"{name}-made.jsonl", map(record, NUMBERS))

    def right(run: Any) -> Scored:
        holds = f">{run.record.row}<" in run.scope["output"]["answer"]
        return Scored(holds, "" if holds else f"it is not {run.record.row}")

    with closing(SideRecords(made, ROWS, 1)) as records:
        return write_scored(records, folder / f"{name}.jsonl", {"right": right}, {})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    ours, theirs = write_side(folder, "ours", {250: 7}), write_side(folder, "theirs", {20: 9})
    file = EvalFile(
        path=Path("shop.eval.yaml"),
        document=Document(file="shop.eval.yaml", text=""),
        flow=Path(),
        rows=Path(),
        scores={"right": ConditionScore(when="true")},
        gates={"right": Gate(at_least=0.999)},
    )
    summary = summarize(file, ROWS, ours, theirs, "main")
    path = folder / "report.html"
    with path.open("wb") as written:
        written.writelines(render_report(summary, ROWS, ours, theirs))
    return path


SHOWN = """
const text = async (selector) => (await page.locator(selector).innerText()).replace(/\\s+/g, " ").trim();
const names = async () => (await page.locator("#body .open-record").allTextContents()).slice(0, 4);
"""


def test_scores_and_rows_that_changed(page: Path) -> None:
    found = work_on(
        page,
        SHOWN
        + """
        const heads = await page.locator(".summary th").allTextContents();
        const cells = await page.locator(".summary td").allTextContents();
        const gate = await text(".gate");
        const first = await names();
        await page.getByRole("button", { name: "250", exact: true }).click();
        return { title: await page.title(), heads, cells, gate, first, record: await text("#record-body") };
        """,
    )
    assert found["title"] == "Evaluation: shop"
    assert found["heads"] == ["score", "mean", "main", "difference", "won", "lost", "p"]
    assert [found["cells"][at] for at in (0, 2, 4, 5, 6)] == ["right", "0.997", "1", "1", "1"]
    assert found["gate"] == "failed right at least 0.999: the mean is 0.9967"
    assert found["first"] == ["250", "20", "1", "2"]
    for words in ("It is <b>7</b> degrees.", "other version", "It is <b>250</b> degrees.", "right: it is not 250"):
        assert words in found["record"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(page: Path, scheme: str) -> None:
    wide = work_on(
        page, "return page.evaluate(() => document.documentElement.scrollWidth);", screen=PHONE, scheme=scheme
    )
    assert wide <= PHONE[0]
