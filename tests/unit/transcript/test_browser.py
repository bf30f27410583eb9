"""The page in a real browser, on a screen of the size of a phone: a page of the test frames it, and works it."""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from flowrun.transcript import build_transcript, render_html
from tests.flows import ADD, AGENT, graph_of
from tests.unit.transcript.recording import Recording, World, calls, said

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on the PATH")

HARNESS = """\
<!DOCTYPE html><meta charset="utf-8"><iframe src="run.html" width="390" height="844"></iframe><pre id="out"></pre>
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument;
  const shown = () => [...page.querySelectorAll("details.step")].filter((step) => step.getClientRects().length);
  const { KeyboardEvent } = frame.contentWindow;
  const press = (key) => page.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const search = (words) => {
    const input = page.querySelector(".find input");
    input.value = words;
    input.dispatchEvent(new frame.contentWindow.Event("input"));
  };
  const focused = () => page.activeElement.closest("details.step")?.id ?? null;
  document.querySelector("#out").textContent = JSON.stringify((() => { BODY })());
});
</script>
"""

Work = Callable[[str, str], Any]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    """Open a page in the browser, run JavaScript beside it, and return its value."""
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def at_work(page: str, body: str) -> Any:
        (tmp_path / "run.html").write_text(page, encoding="utf-8")
        (tmp_path / "harness.html").write_text(HARNESS.replace("BODY", body), encoding="utf-8")
        flags = ["--headless", "--disable-gpu", "--dump-dom", "--virtual-time-budget=10000"]
        if os.getuid() == 0:
            flags.append("--no-sandbox")
        flags.append(f"--user-data-dir={tmp_path / 'profile'}")
        address = f"http://127.0.0.1:{server.server_port}/harness.html"
        done = subprocess.run([str(BROWSER), *flags, address], capture_output=True, text=True, timeout=90, check=True)
        (out,) = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
        return json.loads(unescape(out))

    yield at_work
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


def page_of(recording: Recording) -> str:
    return render_html(recording.graph, build_transcript(recording.graph, recording.recorded, recording.events))


@pytest.fixture(scope="module")
def long_page() -> str:
    """A run of 402 steps: the model's calls 50 and 150 do not match the tool."""
    flow = AGENT.replace("max_rounds: 3, max_steps: 20", "max_rounds: 300, max_steps: 900")
    wrong = calls(("add", '{"a": "x"}'))
    replies = [wrong if n in (50, 150) else calls(("add", f'{{"a": 1, "b": {1000 + n}}}')) for n in range(200)]
    world = World(replies=[*replies, said("done")], functions={"tools.numbers:add": (0.1, 3)})
    return page_of(Recording(graph_of(ADD, flow), world, {"question": "a \u202eb?"}))


def test_four_hundred_steps_are_searched(work: Work, long_page: str) -> None:
    found = work(
        long_page,
        """
        const all = shown().length;
        search("1077 ADD");
        const found = shown().map((step) => step.id);
        const said = page.querySelector(".find .count").textContent;
        page.querySelector(".find input").dispatchEvent(
          new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
        const open = page.getElementById(found[0]).open && focused() === found[0];
        search("nothing has these words");
        const none = shown().length;
        frame.contentWindow.location.hash = "#r1/3";
        search("");
        return { all, found, said, open, none, again: shown().length };
        """,
    )
    assert found == {
        "all": 402,
        "found": ["r1/155", "r1/156"],
        "said": "2 of 402 steps",
        "open": True,
        "none": 0,
        "again": 402,
    }


def test_errors_are_found_one_after_the_other(work: Work, long_page: str) -> None:
    found = work(
        long_page,
        """
        const button = page.querySelector(".next-error");
        const at = [];
        for (let i = 0; i < 3; i += 1) { press("e"); at.push(focused()); }
        const step = page.getElementById(at[0]);
        const colour = (one) => frame.contentWindow.getComputedStyle(one).borderLeftColor;
        const pill = step.querySelector("summary .pill");
        return { says: button.textContent, at, opened: step.open, pill: pill.textContent,
          seen: pill.getClientRects().length, differs: colour(step) !== colour(page.getElementById("r1/2")) };
        """,
    )
    assert found == {
        "says": "Next error (2)",
        "at": ["r1/102", "r1/302", "r1/102"],
        "opened": True,
        "pill": "1 refused call",
        "seen": 1,
        "differs": True,
    }


def test_each_state_has_a_button(work: Work, long_page: str) -> None:
    found = work(
        long_page,
        """
        const chips = [...page.querySelectorAll("[data-chip]")];
        const labels = chips.map((chip) => chip.textContent);
        chips[1].click();
        const states = [...new Set(shown().map((step) => step.dataset.state))];
        const number = shown().length;
        press("e");
        const error = focused();
        chips[1].click();
        return { labels, states, number, error, again: shown().length };
        """,
    )
    assert found == {
        "labels": ["ask ×201", "act ×200", "done"],
        "states": ["act"],
        "number": 200,
        "error": "r1/102",
        "again": 402,
    }


def test_a_link_into_a_step_that_is_filtered_out_shows_it(work: Work, long_page: str) -> None:
    found = work(
        long_page,
        """
        search("1077");
        page.querySelector('.bars a[href="#r1/400"]').click();
        frame.contentWindow.dispatchEvent(new frame.contentWindow.HashChangeEvent("hashchange"));
        return { shown: shown().length, at: focused() };
        """,
    )
    assert found == {"shown": 402, "at": "r1/400"}


def test_keys_typed_into_the_search_are_words(work: Work, long_page: str) -> None:
    found = work(
        long_page,
        """
        press("/");
        const input = page.querySelector(".find input");
        const there = page.activeElement === input;
        for (const key of ["j", "e", "k"])
          input.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        return { there, still: page.activeElement === input };
        """,
    )
    assert found == {"there": True, "still": True}


WIDE = """\
states:
  begin:
    type: route
    routes: [ROUTES, {to: s00}]
STATES
"""


def test_a_wide_drawing_on_a_phone_begins_at_the_path(work: Work) -> None:
    names = [f"s{number:02}" for number in range(14)]
    routes = ", ".join(f"{{when: vars.n == {number}, to: {name}}}" for number, name in enumerate(names) if number)
    ends = "\n".join(f"  {name}: {{type: end, output: {name}}}" for name in names)
    graph = graph_of("", "vars: {n: 1}\n" + WIDE.replace("ROUTES", routes).replace("STATES", ends))
    found = work(
        page_of(Recording(graph, World())),
        """
        const place = page.querySelector("figure.graph");
        const here = place.getBoundingClientRect();
        const at = page.querySelector('a[data-state="begin"]').getBoundingClientRect();
        return { wide: place.scrollWidth > 2 * place.clientWidth, scrolled: place.scrollLeft > 0,
          seen: at.left >= here.left && at.right <= here.right,
          fits: page.documentElement.scrollWidth <= frame.clientWidth };
        """,
    )
    assert found == {"wide": True, "scrolled": True, "seen": True, "fits": True}
