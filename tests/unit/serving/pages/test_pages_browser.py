"""The pages in a real browser, by clicking: with scripts and without, on a desk and on a phone."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from flowrun.serving.gate import Access
from tests.browsing import DESK, PHONE, needs_browser, work_on
from tests.served import Pages, served_pages, until
from tests.unit.serving.pages.conftest import Run
from tests.unit.serving.pages.page_texts import listed

pytestmark = [*needs_browser, pytest.mark.slow]

HELPERS = """
const answers = (where) => where.getByRole("textbox", { name: "Answer" });
const status = () => page.locator("h1 .pill").innerText();
const becomes = (wanted) => page.locator("h1 .pill", { hasText: wanted }).waitFor();
const states = () => page.locator("details.step .state").allTextContents();
const open = async (flow) => {
  await page.locator("tr", { hasText: flow }).locator("td.id a").click();
  await page.locator("h1 .pill").waitFor();
};
const untilState = async (name) => {
  for (let n = 0; n < 100; n += 1) {
    if ((await states()).includes(name)) return;
    await page.waitForTimeout(200);
  }
  throw new Error(`no state ${name}`);
};
"""


def work(pages: Pages, body: str, *, path: str = "/", **options: Any) -> Any:
    return work_on(f"{pages.address}{path}", HELPERS + body, **options)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_from_the_list_to_the_answer_to_the_end(run: Run, pages: Pages, scripts: bool, screen: tuple[int, int]) -> None:
    run("slow", {"seconds": 0})
    run("asks")
    found = work(
        pages,
        """
        await page.getByText("1 run waits for an answer").click();
        const rows = await page.locator("tbody tr").count();
        await page.locator("td.id a").click();
        const asked = await page.locator(".prompt").innerText();
        await page.getByLabel("degrees").fill("200");
        await page.getByLabel("Yes", { exact: true }).check();
        await page.getByRole("button", { name: "Send the answer" }).click();
        const wrong = await page.locator(".mistakes li").innerText();
        await page.getByLabel("degrees").fill("31");
        await page.getByRole("button", { name: "Send the answer" }).click();
        await page.locator("form.answer").waitFor({ state: "detached" });
        const forms = await page.locator("form.answer").count();
        await becomes("succeeded");
        const output = await page.locator("#ends").innerText();
        await page.getByRole("link", { name: "All runs" }).click();
        await page.locator("h1", { hasText: "Runs" }).waitFor();
        return { rows, asked, wrong, forms, output: output.replace(/\\s+/g, " "),
          urgent: await page.locator(".urgent li").count() };
        """,
        scripts=scripts,
        screen=screen,
    )
    assert found == {
        "rows": 1,
        "asked": "How hot is it in Dallas? <script>alert(1)</script>",
        "wrong": "degrees: 200 is greater than the maximum of 60",
        "forms": 0,
        "output": "Inputs city Dallas Output degrees 31",
        "urgent": 0,
    }


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_call_is_approved_with_edited_arguments(run: Run, pages: Pages, scripts: bool) -> None:
    run("refund")
    found = work(
        pages,
        """
        await open("refund");
        const given = await page.locator(".given dd").allInnerTexts();
        await page.getByLabel("Approve").check();
        await page.getByText("Change the arguments").click();
        await page.getByLabel("amount").fill("25");
        await page.getByRole("button", { name: "Send" }).click();
        await becomes("succeeded");
        return { given, calls: await page.locator("#ends").innerText() };
        """,
        scripts=scripts,
    )
    assert found["given"] == ["45", "60", '"to <b>account</b> 12345678"']
    assert "25" in found["calls"].split()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_run_is_cancelled_behind_a_second_look(run: Run, pages: Pages, scripts: bool) -> None:
    run("asks")
    found = work(
        pages,
        """
        await open("asks");
        const now = page.getByRole("button", { name: "Cancel it now" });
        const before = await now.isVisible();
        await page.getByText("Cancel the run…").click();
        await page.getByLabel("Reason").fill("not needed");
        await now.click();
        await becomes("cancelled");
        return { before, why: await page.locator(".n-broken").innerText() };
        """,
        scripts=scripts,
    )
    assert found == {"before": False, "why": "run.cancelled in state ask: not needed"}


@contextmanager
def another_process(shop: Path, journal: Path, name: str, *inputs: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a flow in a process of its own."""
    words = [word for one in inputs for word in ("-i", one)]
    command = [sys.executable, "-m", "flowrun", f"{name}.yaml", "--durable", "--journal", str(journal), "-q", *words]
    process = subprocess.Popen(command, cwd=shop, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_run_of_another_process_is_followed(shop: Path, journal: Path, pages: Pages) -> None:
    with another_process(shop, journal, "slow", "seconds=3"):
        until(lambda: listed(pages.get("/?flow=slow")) or None)
        found = work(
            pages,
            """
            await open("slow");
            await page.evaluate(() => { window.marker = "the same page"; });
            await page.locator("details.step").first().locator("summary").first().click();
            await page.getByLabel("Search the steps").or(page.locator("#steps h2")).first().waitFor();
            await untilState("two");
            await page.getByLabel("Search the steps").fill("done");
            await page.evaluate(() => scrollTo(0, 60));
            const asked = [];
            page.on("framenavigated", () => asked.push("navigated"));
            await becomes("succeeded");
            const said = await page.locator("#announce").textContent();
            const focused = await page.evaluate(() => document.activeElement.getAttribute("aria-label"));
            return { marker: await page.evaluate(() => window.marker), asked, said, focused,
              words: await page.getByLabel("Search the steps").inputValue(),
              folded: await page.locator("details.step").first().evaluate((one) => one.open),
              states: await states(), title: await page.title(),
              hidden: await page.locator("#steps > ol > li[hidden]").count() };
            """,
        )
    assert found == {
        "marker": "the same page",
        "asked": [],
        "said": "succeeded",
        "focused": "Search the steps",
        "words": "done",
        "folded": False,
        "states": ["one", "two", "three", "done"],
        "title": found["title"],
        "hidden": 0,
    }
    assert "succeeded" in found["title"]


def test_a_run_is_followed_without_scripts(shop: Path, journal: Path, pages: Pages) -> None:
    with another_process(shop, journal, "slow", "seconds=2"):
        until(lambda: listed(pages.get("/?flow=slow")) or None)
        found = work(
            pages,
            'await open("slow"); const first = await status(); await becomes("succeeded"); return first;',
            scripts=False,
        )
    assert found == "running"


def test_what_is_typed_stays_while_the_run_goes_on(run: Run, pages: Pages) -> None:
    two = run("two")
    found = work(
        pages,
        f"""
        const other = await page.context().newPage();
        await other.goto(location_of(page, "/runs/{two}"));
        await open("two");
        const [left, right] = [answers(page).first(), answers(page).last()];
        await right.fill("half an ans");
        await answers(other).first().fill("from elsewhere");
        await other.getByRole("button", {{ name: "Send the answer" }}).first().click();
        await page.bringToFront();
        await page.locator("form.answer").nth(1).waitFor({{ state: "detached" }});
        const typed = await answers(page).inputValue();
        const focused = await page.evaluate(() => document.activeElement.value);
        await answers(page).fill("the other");
        await page.getByRole("button", {{ name: "Send the answer" }}).click();
        await becomes("succeeded");
        return {{ typed, focused, ends: await page.locator("#ends").innerText() }};
        """.replace("location_of(page, ", "((page, path) => new URL(path, page.url()).href)(page, "),
    )
    assert (found["typed"], found["focused"]) == ("half an ans", "half an ans")
    assert "from elsewhere" in found["ends"]
    assert "the other" in found["ends"]


def test_a_question_that_comes_is_shown_and_its_form_works(shop: Path, journal: Path, pages: Pages) -> None:
    with another_process(shop, journal, "late"):
        until(lambda: listed(pages.get("/?flow=late")) or None)
        found = work(
            pages,
            """
            await open("late");
            await page.evaluate(() => { window.marker = 1; });
            const note = page.getByLabel("note");
            await page.getByLabel("No", { exact: true }).waitFor();
            const before = await note.isVisible();
            await page.getByLabel("No", { exact: true }).check();
            const after = await note.isVisible();
            await note.fill("because");
            await page.getByRole("button", { name: "Send the answer" }).click();
            await becomes("succeeded");
            return { before, after };
            """,
        )
    assert found == {"before": False, "after": True}


def test_the_list_follows_and_keeps_what_is_typed(run: Run, pages: Pages, shop: Path, journal: Path) -> None:
    with another_process(shop, journal, "slow", "seconds=2"):
        found = work(
            pages,
            """
            await page.locator("#q").fill("half a wor");
            await page.locator("tbody .pill", { hasText: "running" }).waitFor();
            await page.locator("tbody .pill", { hasText: "succeeded" }).waitFor();
            return { typed: await page.locator("#q").inputValue(), rows: await page.locator("tbody tr").count() };
            """,
        )
    assert found == {"typed": "half a wor", "rows": 1}


def test_a_key_is_asked_for(run: Run, journal: Path) -> None:
    asks = run("asks")
    with served_pages(journal, Access(keys=("the-key",))) as pages:
        found = work(
            pages,
            """
            await page.getByLabel("API key").fill("no");
            await page.getByRole("button", { name: "Log in" }).click();
            const wrong = await page.getByRole("alert").innerText();
            await page.getByLabel("API key").fill("the-key");
            await page.getByRole("button", { name: "Log in" }).click();
            await becomes("waiting");
            const path = new URL(page.url()).pathname;
            await page.getByRole("button", { name: "Log out" }).click();
            await page.getByLabel("API key").waitFor();
            return { wrong, path };
            """,
            path=f"/runs/{asks}",
        )
    assert found == {"wrong": "This is none of the server's API keys.", "path": f"/runs/{asks}"}


def test_flowrun_ui(run: Run, shop: Path, journal: Path) -> None:
    run("asks")
    command = [sys.executable, "-m", "flowrun", "ui", "--journal", str(journal), "--port", "0", "--no-open"]
    with subprocess.Popen(command, cwd=shop, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address, _, rest = process.stderr.readline().partition(" ")
            assert rest == f"shows {journal}: Ctrl-C ends it\n"
            found = work(
                Pages(address, lambda: None),
                """
                await open("asks");
                await page.getByLabel("degrees").fill("31");
                await page.getByLabel("No", { exact: true }).check();
                await page.getByRole("button", { name: "Send the answer" }).click();
                await becomes("succeeded");
                return await states();
                """,
            )
            assert found == ["ask", "work", "done"]
        finally:
            process.terminate()
            code = process.wait(20)
        assert (code, process.stderr.read()) == (0, "")
    assert [file.name for file in journal.parent.glob("journal*")] == ["journal.sqlite"]
