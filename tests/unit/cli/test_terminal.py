"""Output to terminals and CI logs: control characters in text from outside are shown, not obeyed."""

import io
import json
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from flowrun.cli.terminal import make_logs_printable, rich_console, write_answer
from tests.unit.backends.chunks import chunk, event
from tests.unit.cli.test_cli import flowrun

ROOT = Path(__file__).parents[3]
EVIL = "a\x1b[2K\x1b[Gb\x9b1A\rc\u202ed\x1b]0;t\x07\x1b]52;c;eA==\x07\n::error::forged\n##[error]forged"
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|^\\s*::|##\\[", re.MULTILINE
)
HEADER = "flowrun: v1\nname: evil\nversion: 1.0.0\nmodel: {backend: scripted, name: replies.yaml}\n"
ASK = "messages: [{role: user, content: Hello.}]\n"
FUNCTIONS = f"""\
EVIL = {EVIL!r}
def give() -> str:
    "Give it."
    return EVIL
def fail() -> str:
    "Fail."
    raise ValueError(EVIL)
"""


def quoted(value: object) -> str:
    return json.dumps(value)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with functions and replies whose text must not be obeyed."""
    (tmp_path / "evil.py").write_text(FUNCTIONS)
    (tmp_path / "replies.yaml").write_text(
        "replies:\n"
        f"- {{when: request.state == 'use', tool_calls: [{{name: give, arguments: {quoted(EVIL)}}}, "
        f"{{name: give}}, {{name: fail}}, {{name: {quoted(EVIL)}}}]}}\n"
        f"- {{when: request.state == 'fail', error: backend.unavailable, message: {quoted(EVIL)}}}\n"
        f"- {{content: {quoted(EVIL)}, repeat: true}}\n"
    )
    return tmp_path


SPECS = {
    "a reply": ASK,
    "an error of a backend": ASK + "states: {fail: {type: chat, next: done}, done: {type: end}}\n",
    "calls, results and failures": ASK
    + 'tools: {give: {entrypoint: "evil:give"}, fail: {entrypoint: "evil:fail"}}\n'
    + "states: {use: {type: chat, next: act}, act: {type: tools, next: done}, "
    + 'done: {type: end, output: "{{ results }}"}}\n',
    "a function that raises": 'states: {go: {type: call, entrypoint: "evil:fail", next: done}, done: {type: end}}\n',
    "a template that fails": f"states: {{done: {{type: end, output: {quoted('{{ ' + repr(EVIL) + '.nothing }}')}}}}}\n",
    "a question": ASK
    + "states: {ask: {type: chat, next: ok}, "
    + 'ok: {type: wait, prompt: "Send? {{ reply.content }}", next: done}, done: {type: end}}\n',
    "an input": f"inputs: {{q: {{type: string, default: {quoted(EVIL)}}}}}\nstates: {{done: {{type: end}}}}\n",
    "issues": f"states: {{go: {{type: route, next: {quoted(EVIL)}}}, done: {{type: end, {quoted(EVIL)}: 1}}}}\n",
}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "words", [("run",), ("validate",), ("validate", "--format", "json"), ("graph",)], ids=lambda words: " ".join(words)
)
def test_no_text_from_outside_is_obeyed(project: Path, spec: str, words: tuple[str, ...]) -> None:
    (project / "spec.yaml").write_text(HEADER + SPECS[spec])
    done = flowrun(*words, "spec.yaml", cwd=project)
    assert done.returncode in (0, 1, 4), done.stderr
    output = done.stderr if words[0] == "run" else done.stdout + done.stderr  # a run's answer on stdout is for programs
    assert OBEYED.findall(output) == []


def test_annotations_cannot_be_forged(project: Path) -> None:
    (project / "spec.yaml").write_text(HEADER + SPECS["issues"])
    lines = flowrun("validate", "--format", "github", "spec.yaml", cwd=project).stdout.splitlines()
    assert [line[:22] for line in lines if line] == ["::error file=spec.yaml"] * len(lines)
    assert [line for line in lines if OBEYED.search(line.removeprefix("::"))] == []


def test_reports_of_tests_cannot_be_forged(project: Path) -> None:
    (project / "spec.yaml").write_text(HEADER + ASK)
    tests = [{"name": f"one {EVIL}", "replies": [{"content": EVIL}], "expect": {"output": EVIL + "?"}}]
    (project / "spec.test.yaml").write_text(json.dumps({"flow": "spec.yaml", "tests": tests}))
    for words in (("test", "spec.yaml"), ("test", "-v", "spec.yaml", "--junit", "out.xml")):
        done = flowrun(*words, cwd=project)
        assert (done.returncode, OBEYED.findall(done.stdout + done.stderr)) == (1, [])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", (project / "out.xml").read_text())
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "spec.test.yaml"]
    done = subprocess.run(pytest_, cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert OBEYED.findall(done.stdout) == []


@pytest.mark.slow
def test_durable_runs_are_shown_and_not_obeyed(project: Path) -> None:
    (project / "spec.yaml").write_text(HEADER + SPECS["a question"])
    environ = {"FLOWRUN_JOURNAL": str(project / "j.sqlite")}
    done = flowrun("spec.yaml", "--durable", cwd=project, **environ)
    run = json.loads(flowrun("runs", "--json", cwd=project, **environ).stdout)["id"]
    output = [done.stderr]
    for words in (
        ("runs",),
        ("show", run),
        ("show", run, "--json"),
        ("replay", run),
        ("replay", run, "--json"),
        ("answer", run),
        ("answer", run, "--value", EVIL),
        ("show", run, "--html", "page.html"),
    ):
        shown = flowrun(*words, cwd=project, **environ)
        output.append(shown.stdout + shown.stderr)
    assert OBEYED.findall("\n".join(output)) == []
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", (project / "page.html").read_text())


def test_wrong_usage_and_tracebacks_are_shown_too(project: Path) -> None:
    output = [flowrun(EVIL, cwd=project).stderr, flowrun("run", "--evil" + EVIL, "x.yaml", cwd=project).stderr]
    (project / "spec.yaml").write_text(HEADER + SPECS["a function that raises"])
    output.append(flowrun("--debug", "run", "spec.yaml", "-i", EVIL, cwd=project).stderr)
    assert "Traceback" in output[-1]
    assert OBEYED.findall("\n".join(output)) == []


def test_rich_shows_and_obeys_nothing() -> None:
    stream = io.StringIO()
    console = rich_console(file=stream, force_terminal=True, width=200, color_system="truecolor")
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(Text(EVIL, style="red"))
    console.print(Text(EVIL, style="bold"), table, EVIL, soft_wrap=True, markup=False)
    with console.status(Text(EVIL)):
        pass
    ours = re.sub("\x1b\\[[0-9;?]*[mhlAK]|\r", "", stream.getvalue())
    assert "\x1b[31m" in stream.getvalue()
    assert OBEYED.findall(ours) == []


def test_an_unhandled_log_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert logging.lastResort is not None
    before = logging.lastResort.formatter
    make_logs_printable()
    try:
        logging.lastResort.handle(logging.LogRecord("n", logging.ERROR, "f", 1, "said: %s", (EVIL,), None))
    finally:
        logging.lastResort.setFormatter(before)
    assert OBEYED.findall(capsys.readouterr().err) == []


def test_an_answer_is_for_programs_and_on_a_terminal_for_people() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, obeyed in ((io.StringIO(), True), (Terminal(), False)):
        write_answer(stream, EVIL)
        assert bool(OBEYED.search(stream.getvalue())) is obeyed


# --- a user at a terminal -------------------------------------------------------------------------------------------


def at_terminal(project: Path, *words: str, keys: bytes, sign: str, term: str = "dumb") -> tuple[str, int]:
    """Run a verb on a terminal, and press keys once it shows a sign; return (its full output, its exit code)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(project)
        os.environ |= {"TERM": term, "COLUMNS": "100", "FLOWRUN_JOURNAL": "j.sqlite"}
        os.execv(sys.executable, [sys.executable, "-m", "flowrun", *words])
    shown = b""
    pressed = False
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if not pressed and sign.encode() in shown:
                pressed = os.write(terminal, keys) > 0
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    shown += os.read(terminal, 65536)
                except OSError:  # the process has ended
                    break
    finally:
        os.close(terminal)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return shown.decode(errors="replace"), os.waitstatus_to_exitcode(ended[1])


class SlowServer(BaseHTTPRequestHandler):
    """A server of a model that takes its time in the middle of a reply."""

    def do_GET(self) -> None:
        self._begin("application/json")
        self.wfile.write(b'{"data": [{"id": "slow"}]}')

    def do_POST(self) -> None:
        assert json.loads(self.rfile.read(int(self.headers["content-length"])))["stream"]
        self._begin("text/event-stream")
        for seconds, piece in ((0.8, EVIL + " It is f"), (0.0, "air, truly.")):
            self.wfile.write(event(chunk({"content": piece})))
            time.sleep(seconds)
        self.wfile.write(event(chunk({}, "stop")))

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def test_what_a_model_writes_is_shown_while_it_is_written(project: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        model = f"{{backend: openai, name: slow, base_url: 'http://127.0.0.1:{server.server_port}/v1'}}"
        header = HEADER.replace("{backend: scripted, name: replies.yaml}", model)
        (project / "spec.yaml").write_text(f"{header}{ASK}states: {{ask: {{type: chat, next: e}}, e: {{type: end}}}}\n")
        shown, code = at_terminal(project, "run", "spec.yaml", keys=b"", sign="-", term="xterm")
        server.shutdown()
    assert code == 0
    ours = re.sub("\x1b\\[[0-9;?]*[mhlAK]|\r", "", shown)
    assert OBEYED.findall(ours) == []
    live, _, printed = ours.partition("    reply  [ask] ")
    assert re.search(r"ask: the model is writing, 0 s *\n *\[ask\] a�\[2K�\[Gb", live)
    assert "It is f" in live
    assert "It is fair, truly." in printed


YES_OR_NO = SPECS["a question"].replace("next: done}, done", "schema: {type: boolean}, next: done}, done")


def test_nobody_approves_a_forged_text(project: Path) -> None:
    (project / "spec.yaml").write_text(HEADER + YES_OR_NO)
    shown, code = at_terminal(project, "run", "spec.yaml", keys=b"perhaps\nyes\n", sign="yes or no > ")
    assert code == 0
    lines = shown.replace("\r\n", "\n")
    ours = re.sub("\x1b\\[[0-9;?]*[mhlAK]|\r", "", lines)
    assert OBEYED.findall(ours) == []
    assert "│ Send? a�[2K�[Gb�1A�c�d�]0;t��]52;c;eA==�\n│ ::error::forged\n│ �#[error]forged\n" in ours
    assert "that does not match" in ours


@pytest.mark.parametrize("verb", ["run", "answer"])
def test_ctrl_c_at_a_question_ends_with_130(project: Path, verb: str) -> None:
    (project / "spec.yaml").write_text(HEADER + YES_OR_NO)
    words: tuple[str, ...] = ("run", "spec.yaml")
    if verb == "answer":
        environ = {"FLOWRUN_JOURNAL": str(project / "j.sqlite")}
        flowrun("spec.yaml", "--durable", cwd=project, **environ)
        words = ("answer", json.loads(flowrun("runs", "--json", cwd=project, **environ).stdout)["id"])
    shown, code = at_terminal(project, *words, keys=b"\x03", sign="yes or no > ")
    assert (code, "interrupted" in shown, "Fatal" in shown) == (130, True, False)


def test_ctrl_c_at_a_durable_question_says_how_the_run_is_resumed(project: Path) -> None:
    (project / "spec.yaml").write_text(HEADER + YES_OR_NO)
    shown, code = at_terminal(project, "run", "spec.yaml", "--durable", keys=b"\x03", sign="yes or no > ")
    found = re.search("resume the run by: flowrun resume ([0-9a-f]+)", shown)
    assert code == 130
    assert found is not None
    shown, code = at_terminal(project, "resume", found[1], keys=b"yes\n", sign="yes or no > ")
    assert (code, "succeeded" in shown) == (0, True)
