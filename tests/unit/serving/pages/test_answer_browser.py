"""The form in a real browser: what is not asked for is hidden, by the script only; nothing is wider than a phone."""

from pathlib import Path
from typing import Any

import pytest

from flowrun.core.approvals import compile_approval
from flowrun.serving.pages.answer_fields import form_script, form_style, render_form
from flowrun.spec.model import Approval
from flowrun.transcript.page_parts import content_policy, read_part
from tests.browsing import needs_browser, work_on
from tests.unit.serving.pages.forms import question

pytestmark = [*needs_browser, pytest.mark.slow]

PARAMETERS = {
    "type": "object",
    "properties": {
        "amount": {"type": "number"},
        "note": {"type": "string"},
        "when": {"type": "string", "format": "date"},
        "kinds": {"type": "array", "items": {"enum": ["a", "b"]}},
        "rows": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
    },
    "required": ["amount"],
}
ARGUMENTS = {"amount": 1.5, "note": "a\n\nb " + "long" * 300, "rows": [{"name": "x"}]}

LOOK = """
  const seen = (words) => page.getByText(words).isVisible();
  const look = async () => ({
    edits: await seen("Change the arguments"), reason: await seen("Reason, which the model reads"),
  });
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    approval = compile_approval("refund", Approval(), PARAMETERS, ["key"])
    call = {"id": "1", "name": "refund", "arguments": ARGUMENTS, "hidden": {"key": "k" * 300}}
    form = render_form(question(approval.schema_with(ARGUMENTS), call=call, prompt="word" * 200), action="#sent")
    style, script = read_part("page.css") + form_style(), form_script()
    policy = content_policy(style, script).replace("form-action 'none'", "form-action 'self'")
    written = tmp_path / "form.html"
    written.write_text(
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A question</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body>{form}<script>{script}</script></body></html>",
        encoding="utf-8",
    )
    return written


def test_what_is_not_asked_for_is_hidden(page: Path) -> None:
    found: Any = work_on(
        page,
        LOOK
        + """
        const first = await look();
        await page.getByLabel("Approve").check();
        const yes = await look();
        await page.getByText("Change the arguments").click();
        const opened = await page.getByLabel("amount").inputValue();
        await page.getByLabel("Refuse").check();
        return [first, yes, opened, await look()];
        """,
    )
    nothing = {"edits": False, "reason": False}
    assert found == [nothing, {**nothing, "edits": True}, "1.5", {**nothing, "reason": True}]


def test_the_keyboard_chooses_and_sends_the_answer_and_not_the_first_row(page: Path) -> None:
    found: Any = work_on(
        page,
        """
        await page.evaluate(() => document.querySelector("form.answer").addEventListener("submit", (event) => {
          event.preventDefault();
          window.sent = [event.submitter?.name ?? "", [...new FormData(event.target).keys()]];
        }));
        await page.getByLabel("Approve").focus();
        await page.keyboard.press("Space");
        await page.getByText("Change the arguments").click();
        await page.getByLabel("amount").press("Enter");
        return page.evaluate(() => window.sent);
        """,
    )
    assert found[0] == ""
    assert found[1][:3] == ["question", "f0", "f1"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone_and_all_is_named(page: Path, scheme: str) -> None:
    found: Any = work_on(
        page,
        """
        await page.getByLabel("Approve").check();
        await page.getByText("Change the arguments").click();
        const controls = "input:not([type=hidden]), textarea, select";
        return page.evaluate((controls) => [
          document.documentElement.scrollWidth,
          [...document.querySelectorAll(controls)].filter((one) => !one.labels.length).length,
          document.querySelectorAll("[style]").length,
        ], controls);
        """,
        screen=(360, 740),
        scheme=scheme,
    )
    assert found == [360, 0, 0]
