"""The page of 10,000 records in a real browser without a network."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowrun.records import RecordFiles, render_table_page
from tests.browsing import PHONE, needs_browser, work_on
from tests.records import failed_record, record_of, said_messages, write_records

pytestmark = needs_browser
ROWS = 10_000

HELPERS = """
const shown = () => page.locator("#body tr").count();
const names = async () => (await page.locator("#body .open-record").allTextContents()).slice(0, 5);
const text = async (selector) => (await page.locator(selector).innerText()).replace(/\\s+/g, " ").trim();
const counted = (wanted) => page.waitForFunction(
  (count) => document.querySelector("#count").textContent.startsWith(count), wanted);
const search = async (words, count) => {
  await page.locator("#search").fill("");
  await counted("10,000 records");
  await page.locator("#search").fill(words);
  await counted(count);
};
const focused = () => page.evaluate(() => document.activeElement.textContent);
"""

Work = Callable[..., Any]


def records() -> Iterator[dict[str, Any]]:
    """Rows of which each 2,000th failed; row 7,777 has a text that no other one has."""
    for row in range(1, ROWS + 1):
        answer = "It is <b>9 degrees</b> in C:\\new" if row == 7_777 else f"It is {row % 40} degrees."
        more = {
            "id": f"city-{row}" if row % 2 else row,
            "messages": said_messages(f'How hot is it in {row}?\n"Now"?', "Dallas", answer),
            **({"masked": True} if row == 3 else {}),
            "scores": {"right": row % 3 == 0, "close": row * 7919 % ROWS / ROWS},
        }
        if row % 2_000 == 0:
            name = "model.truncated" if row == 4_000 else "tool.failed"
            yield failed_record(row, name, "</script><script>alert(1)</script>", **more)
        else:
            yield record_of(row, **more)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    path = write_records(folder / "out.jsonl", records())
    with (folder / "page.html").open("wb") as file:
        file.writelines(render_table_page("out.jsonl", RecordFiles(path).entries()))
    return folder / "page.html"


@pytest.fixture
def work(page: Path) -> Work:
    """Open the page, run JavaScript with it, and return its value."""
    return lambda body, **how: work_on(page, f"{HELPERS} {body}", **how)


def test_ten_thousand_records_are_searched(work: Work) -> None:
    found = work(
        """
        const first = [await shown(), await text("#count"), await text("#page"), await names()];
        await search("c:\\\\NEW <b>9", "1 of 10,000");
        const one = await names();
        await search('"Now"? in 4321?', "1 of 10,000");
        const quoted = await names();
        await search("assistant", "0 of 10,000");
        const none = await page.locator("#none").isVisible();
        await page.locator("#search").press("Escape");
        return { first, one, quoted, none, again: await text("#count") };
        """
    )
    assert found == {
        "first": [
            100,
            "10,000 records · right: mean 0.333 · close: mean 0.5",
            "page 1 of 100",
            ["city-1", "2", "city-3", "4", "city-5"],
        ],
        "one": ["city-7777"],
        "quoted": ["city-4321"],
        "none": True,
        "again": "10,000 records · right: mean 0.333 · close: mean 0.5",
    }


def test_filters_by_status_and_error(work: Work) -> None:
    found = work(
        """
        const chip = (name) => page.getByRole("button", { name, exact: true });
        const labels = await page.locator("#statuses button, #errors button").allTextContents();
        await chip("failed 5").click();
        const failed = [await names(), await chip("failed 5").getAttribute("aria-pressed")];
        await chip("model.truncated 1").click();
        const both = await names();
        await chip("failed 5").click();
        await chip("succeeded 9,995").click();
        const none = await shown();
        await page.locator("#clear").click();
        return { labels, failed, both, none, again: await shown() };
        """
    )
    assert found == {
        "labels": ["succeeded 9,995", "failed 5", "tool.failed 4", "model.truncated 1"],
        "failed": [["2000", "4000", "6000", "8000", "10000"], "true"],
        "both": ["4000"],
        "none": 0,
        "again": 100,
    }


def test_each_score_sorts(work: Work) -> None:
    found = work(
        """
        const head = (name) => page.getByRole("columnheader", { name, exact: true });
        const figures = (label) => page.locator(`td[data-name="${label}"]`).evaluateAll(
          (cells) => cells.slice(0, 3).map((cell) => cell.textContent));
        await head("close").getByRole("button").click();
        const down = [await figures("close"), await head("close").getAttribute("aria-sort")];
        await head("close").getByRole("button").click();
        const up = [await figures("close"), await head("close").getAttribute("aria-sort")];
        await head("right").getByRole("button").click();
        const right = [await figures("right"), await names()];
        await head("tokens").getByRole("button").click();
        return { down, up, right, tokens: await names() };
        """
    )
    assert found == {
        "down": [["1", "1", "1"], "descending"],
        "up": [["0", "0.0001", "0.0002"], "ascending"],
        "right": [["✓", "✓", "✓"], ["city-3", "6", "city-9", "12", "city-15"]],
        "tokens": ["10000", "city-9999", "9998", "city-9997", "9996"],
    }


def test_from_failure_to_failure(work: Work) -> None:
    found = work(
        """
        const at = [];
        const button = page.locator("#next-failure");
        for (let i = 0; i < 6; i += 1) {
          await (i < 2 ? button.click() : page.keyboard.press("e"));
          at.push([await focused(), await text("#page")]);
        }
        await page.keyboard.press("Enter");
        const opened = [await text("#record-title")];
        await page.keyboard.press("e");
        opened.push(await text("#record-title"));
        await page.locator("#record-failure").click();
        opened.push(await text("#record-title"));
        await page.keyboard.press("Escape");
        return { says: await button.textContent(), at, opened, back: await focused() };
        """
    )
    assert found == {
        "says": "Next failure (5)",
        "at": [
            ["2000", "page 20 of 100"],
            ["4000", "page 40 of 100"],
            ["6000", "page 60 of 100"],
            ["8000", "page 80 of 100"],
            ["10000", "page 100 of 100"],
            ["2000", "page 20 of 100"],
        ],
        "opened": ["2000 failed", "4000 failed", "6000 failed"],
        "back": "6000",
    }


def test_a_record_is_opened_with_its_messages(work: Work) -> None:
    found = work(
        """
        await page.locator("#body tr").nth(2).click();
        const who = await page.locator("#record-body .who").allTextContents();
        const said = await page.locator("#record-body .message .what").allInnerTexts();
        const first = [await text("#record-title"), who, said, await text("#record-body .facts li:last-child")];
        await page.keyboard.press("j");
        const next = await text("#record-title");
        await page.locator("#record-close").click();
        const open = await page.locator("#record").isVisible();
        return { first, next, open };
        """
    )
    assert found == {
        "first": [
            "row 3, city-3 succeeded",
            ["user", "assistant", "tool", "assistant"],
            [
                'How hot is it in 3?\n"Now"?',
                'temperature\n{\n  "city": "Dallas"\n}',
                "temperature\n31",
                "It is 3 degrees.",
            ],
            "secrets are replaced in it",
        ],
        "next": "4 succeeded",
        "open": False,
    }


def test_a_link_leads_to_a_record(work: Work) -> None:
    found = work(
        """
        await page.locator("#search").fill("nothing has these words");
        await page.evaluate(() => { location.hash = "#record-7777"; });
        await page.locator("#record").waitFor();
        const opened = [await text("#record-title"), await text("#record-body .message-assistant:last-child .text")];
        await page.keyboard.press("Escape");
        await page.locator("#records").waitFor();
        return { opened, hash: await page.evaluate(() => location.hash) };
        """
    )
    assert found == {"opened": ["row 7777, city-7777 succeeded", "It is <b>9 degrees</b> in C:\\new"], "hash": ""}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(work: Work, scheme: str) -> None:
    found = work(
        """
        const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
        const paper = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        const table = await fits();
        await page.locator("#sort").selectOption({ label: "close" });
        await page.locator("#direction").tap();
        const sorted = await names();
        await page.locator("#next-failure").tap();
        const failure = await focused();
        await page.locator("tr", { hasText: "tool.failed" }).first().tap();
        const error = await text("#record-body .failure");
        const record = await page.locator("#record").evaluate(
          (one) => [one.getBoundingClientRect().width, one.scrollWidth <= one.clientWidth]);
        const roles = await page.locator("#body [role=row] > [role=cell]").count() > 500;
        return { paper, table, roles, sorted: sorted[0], failure, error, record };
        """,
        screen=PHONE,
        scheme=scheme,
    )
    assert found == {
        "paper": {"light": "rgb(246, 247, 249)", "dark": "rgb(8, 11, 16)"}[scheme],
        "table": True,
        "roles": True,
        "sorted": "10000",
        "failure": "10000",
        "error": "tool.failed in state ask: </script><script>alert(1)</script>",
        "record": [390, True],
    }
