"""``flowrun eval`` as a command, on a project with a scripted model: scores, comparisons, gates, mistakes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.evals import FILES, RESULTS, commit, edit, evaluate, git, said, scored, write_project
from tests.processes import children, wait_for_end

pytest.importorskip("scipy", reason="scipy (the extra eval) is not installed")

ENGINE = Path(__file__).parents[3] / "engine"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project whose evaluation was run."""
    folder = write_project(tmp_path_factory.mktemp("shop"))
    done = evaluate(folder, "shop.eval.yaml", "--junit", "out.xml")
    assert done.returncode == 0, done.stderr + done.stdout
    (folder / "stdout").write_text(done.stdout)
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "shop"))


def test_scores_of_each_kind(finished: Path) -> None:
    records = scored(finished / RESULTS / "records.jsonl")
    assert list(records) == [(row, sample) for row in "abcd" for sample in (1, 2)]
    assert {row: record["scores"] for (row, sample), record in records.items() if sample == 1} == {
        "a": {"right": 1.0, "said": True, "called": True, "close": 1.0, "judged": 0.75},
        "b": {"right": 1.0, "said": True, "called": False, "close": 1.0, "judged": 0.75},
        "c": {"right": 0.0, "said": False, "called": False, "close": 0.125, "judged": 0.75},
        "d": {"right": 0.0, "said": 0.0, "called": False, "close": 0.0, "judged": 0.0},
    }
    assert records["a", 1]["reasons"] == {"close": "2 for 2", "judged": "judged"}
    assert "expected" in records["b", 1]["reasons"]["called"]
    assert "the run failed" in records["d", 1]["reasons"]["said"]
    assert records["a", 1]["trace"]["calls"] == [{"name": "price", "arguments": {"item": "pen"}}]


def test_the_table(finished: Path) -> None:
    lines = [line.split() for line in (finished / "stdout").read_text().splitlines()]
    assert lines[0] == ["shop:", "4", "rows,", "2", "samples", "each"]
    assert ["score", "mean", "pass@2", "pass^2"] in lines
    assert [line[1] for line in lines if line[0] == "right"] == ["0.500"]
    assert [line[-1] for line in lines if line[0] == "called"] == ["0.250"]
    assert [line[:5] for line in lines if line[0] == "kind"][:2] == [
        ["kind", "large", "(2", "rows)", "0.500"],
        ["kind", "small", "(2", "rows)", "0.500"],
    ]
    assert ["passed", "right", "at", "least", "0.5:", "the", "mean", "is", "0.5"] in lines


def test_results_are_left_out_of_git(finished: Path) -> None:
    assert (finished / RESULTS.parent / ".gitignore").read_text() == "*\n"


def test_junit_has_gates_and_scores(finished: Path) -> None:
    suite = ElementTree.parse(finished / "out.xml").getroot()[0]
    assert [case.get("name") for case in suite] == [
        "gate right at_least",
        *(f"score {name}" for name in ("right", "said", "called", "close", "judged")),
    ]
    assert suite.get("failures") == "0"
    assert suite[0].get("line") == "12"


def test_nothing_is_run_or_judged_twice(project: Path) -> None:
    edit(project / "judge_replies.yaml", "0.75", "0.1")  # another judge: its old judgements do not hold
    done = evaluate(project, "shop.eval.yaml", "--json")
    assert "all 8 runs were finished before" in done.stderr
    assert "judging 2 answers (judged)" in done.stderr
    assert said(done)["scores"]["judged"]["mean"]["mean"] == pytest.approx(0.075)


def test_rows_that_did_not_begin_for_max_tokens_are_left_for_the_same_command(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "shop")
    edit(folder / "replies.yaml", '{content: "12",', '{content: "12", usage: {prompt_tokens: 100},')
    words = ("shop.eval.yaml", "--max-tokens", "100", "--max-live", "1", "-q")
    stopped = evaluate(folder, *words)
    assert (stopped.returncode, "--max-tokens gives 100: no further row began" in stopped.stderr) == (1, True)
    for _ in range(4):  # four runs use the budget up, each in a session of its own
        stopped = evaluate(folder, *words)
    assert stopped.returncode == 0, stopped.stderr


def test_another_version_of_the_code_is_run(project: Path) -> None:
    edit(project / "tools/shop.py", '"pen": 2', '"pen": 3')
    done = evaluate(project, "shop.eval.yaml", "--json")
    assert "finished before" not in done.stderr
    assert said(done)["rows"] == 4


def test_labels_of_rows_are_those_of_now_and_changed_questions_are_asked_again(project: Path) -> None:
    edit(project / "data/items.jsonl", '"expected": 5', '"expected": 12')
    done = evaluate(project, "shop.eval.yaml", "--json")
    assert "all 8 runs" in done.stderr
    assert said(done)["scores"]["right"]["mean"]["mean"] == 0.75
    edit(project / "data/items.jsonl", '"glue"', '"paper"')
    done = evaluate(project, "shop.eval.yaml", "--json")
    assert "6  of them finished before" in done.stderr
    assert said(done)["costs"]["failed"] == 0
    assert scored(project / RESULTS / "records.jsonl")["d", 2]["inputs"] == {"item": "paper"}


def test_rescoring_runs_nothing(project: Path) -> None:
    edit(project / "shop.eval.yaml", "compare: numeric", "compare: contains")
    (project / "replies.yaml").write_text((project / "replies.yaml").read_text())
    done = evaluate(project, "shop.eval.yaml", "--rescore", "--json")
    assert (done.returncode, said(done)["scores"]["right"]["mean"]["mean"]) == (0, 0.5)
    edit(project / "judge_replies.yaml", "0.75", "0.1")
    done = evaluate(project, "shop.eval.yaml", "--rescore")
    assert done.returncode == 2
    assert "2 judgements of judged are not recorded" in done.stderr


def test_rescoring_what_was_not_run_is_refused(tmp_path: Path) -> None:
    done = evaluate(write_project(tmp_path), "shop.eval.yaml", "--rescore")
    assert (done.returncode, "run it first" in done.stderr) == (2, True)


def test_a_gate_that_is_not_passed_sets_the_exit_code(project: Path) -> None:
    edit(project / "shop.eval.yaml", "at_least: 0.5", "at_least: 0.9")
    done = evaluate(project, "shop.eval.yaml", "--junit", "out.xml")
    assert done.returncode == 1
    assert "failed    right at least 0.9: the mean is 0.5" in done.stdout
    assert ElementTree.parse(project / "out.xml").getroot().get("failures") == "1"


def test_a_run_that_cannot_be_scored_is_said(project: Path) -> None:
    edit(project / "measures/text.py", 'output["price"]', 'output["cost"]')
    done = evaluate(project, "shop.eval.yaml")
    assert done.returncode == 1
    assert "close: 6 runs have no score: it cannot be scored: KeyError: 'cost'" in done.stdout
    assert scored(project / RESULTS / "records.jsonl")["a", 1]["scores"]["close"] is None


# --- comparisons ----------------------------------------------------------------------------------------------------


def test_against_a_git_revision_with_its_code_and_files(project: Path) -> None:
    edit(project / "replies.yaml", 'content: "2"', 'content: "3"')
    edit(project / "shop.eval.yaml", "at_least: 0.5", "max_drop: 0.1")
    commit(project, "second")
    done = evaluate(project, "shop.eval.yaml", "--against", "HEAD~1", "--json")
    assert done.returncode == 1, done.stderr
    found = said(done)
    assert (found["against"], found["paired"]) == ("HEAD~1", 4)
    right = found["scores"]["right"]
    assert (right["mean"]["mean"], right["theirs"]["mean"], right["difference"]["mean"]) == (0.25, 0.5, -0.25)
    assert (right["difference"]["won"], right["difference"]["lost"], right["difference"]["tied"]) == (0, 1, 3)
    assert [(gate["what"], gate["status"]) for gate in found["gates"]] == [("max_drop", "failed")]
    assert scored(project / RESULTS / "against.jsonl")["a", 1]["output"] == {"price": "2"}
    assert "all 8 runs were finished before" in done.stderr  # those of HEAD~1, by the earlier evaluation
    worktrees = project / ".git" / "worktrees"
    assert not worktrees.exists() or not list(worktrees.iterdir())
    assert evaluate(project, "shop.eval.yaml", "--against", "HEAD~1", "--rescore", "-q").returncode == 1


def test_a_revision_has_its_own_functions(project: Path) -> None:
    (project / "replies.yaml").write_text(
        """\
replies:
  - {when: "'3' in request.messages[-1].content", content: "3", repeat: true}
  - {when: "request.messages[-1].role == 'tool'", content: "2", repeat: true}
  - {tool_calls: [{name: price, arguments: {item: pen}}], repeat: true}
"""
    )
    commit(project, "always asks")
    edit(project / "tools/shop.py", '"pen": 2', '"pen": 3')
    commit(project, "dearer")
    found = said(evaluate(project, "shop.eval.yaml", "--against", "main~1", "--json"))
    outputs = {
        name: scored(project / RESULTS / f"{name}.jsonl")["a", 1]["output"]["price"] for name in ("records", "against")
    }
    assert outputs == {"records": "3", "against": "2"}
    assert found["scores"]["right"]["difference"]["lost"] == 1


def test_against_the_same_flow(project: Path) -> None:
    done = evaluate(project, "shop.eval.yaml", "--against", "HEAD", "--json")
    assert "the flow and its code are the same at HEAD" in done.stderr
    assert said(done)["scores"]["right"]["difference"]["mean"] == 0


def test_against_another_spec_and_against_results(project: Path) -> None:
    shutil.copy(project / "shop.yaml", project / "other.yaml")
    edit(project / "other.yaml", "replies.yaml", "others.yaml")
    (project / "others.yaml").write_text('replies: [{content: "5", repeat: true}]\n')
    first = said(evaluate(project, "shop.eval.yaml", "--against", "other.yaml", "--json"))
    assert (first["scores"]["right"]["theirs"]["mean"], first["paired"]) == (0.25, 4)
    shutil.copytree(project / RESULTS, project / "kept")
    edit(project / "replies.yaml", 'content: "12"', 'content: "5"')
    again = said(evaluate(project, "shop.eval.yaml", "--against", "kept", "--json"))
    assert again["scores"]["right"]["theirs"]["mean"] == 0.5
    file = said(evaluate(project, "shop.eval.yaml", "--against", "kept/against.jsonl", "--json"))
    assert file["scores"]["right"]["theirs"]["mean"] == 0.25


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "no-such-branch"], "no such git revision"),
        (["--restart", "--retry-failed"], "--restart runs every row anew"),
        (["--rescore", "--restart"], "--rescore runs nothing"),
        (["--cassette", "none.jsonl"], "there is no cassette none.jsonl"),
        (["--record", "a.jsonl", "--cassette", "b.jsonl"], "choose one of them"),
        (["--profile", "none"], "none"),
    ],
)
def test_wrong_usage(project: Path, words: list[str], message: str) -> None:
    done = evaluate(project, "shop.eval.yaml", *words)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_flow_that_was_not_there(project: Path) -> None:
    git(project, "mv", "shop.yaml", "store.yaml")
    edit(project / "shop.eval.yaml", "shop.yaml", "store.yaml")
    commit(project, "moved")
    done = evaluate(project, "shop.eval.yaml", "--against", "HEAD~1")
    assert (done.returncode, "store.yaml was not there at HEAD~1" in done.stderr) == (2, True)


def test_a_revision_whose_flow_is_broken(project: Path) -> None:
    edit(project / "shop.yaml", "next: ask", "next: nowhere")
    commit(project, "broken")
    edit(project / "shop.yaml", "next: nowhere", "next: ask")
    commit(project, "mended")
    done = evaluate(project, "shop.eval.yaml", "--against", "HEAD~1")
    assert done.returncode == 1
    assert "FR701" in done.stderr
    assert "the other version of the flow did not run" in done.stderr


# --- recorded models, interruptions ---------------------------------------------------------------------------------


def test_recorded_replies_take_the_place_of_models(project: Path) -> None:
    refused = evaluate(project, "shop.eval.yaml", "--record", "kept.jsonl")
    assert (refused.returncode, "add --restart" in refused.stderr) == (2, True)
    shutil.rmtree(project / "eval-results")
    recorded = evaluate(project, "shop.eval.yaml", "--record", "kept.jsonl", "--json")
    assert recorded.returncode == 0, recorded.stderr
    lines = (project / "kept.jsonl").read_text().splitlines()
    assert len(lines) == 12  # two of each sample that calls, one of each other, and two of the judge
    edit(project / "replies.yaml", 'content: "12"', 'content: "99"')
    edit(project / "judge_replies.yaml", "0.75", "0.1")
    played = evaluate(project, "shop.eval.yaml", "--cassette", "kept.jsonl", "--json")
    assert said(played)["scores"] == said(recorded)["scores"]
    asked = evaluate(project, "shop.eval.yaml", "--json")  # replies of a cassette are not taken for those of a model
    assert said(asked)["scores"]["judged"]["mean"]["mean"] == pytest.approx(0.075)


def test_an_interrupted_evaluation_goes_on(project: Path) -> None:
    (results,) = (project / RESULTS / "runs").glob("*/results.jsonl")
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join(lines[:5]) + lines[5][:40])  # as a crash leaves it
    done = evaluate(project, "shop.eval.yaml", "--json")
    assert "5  of them finished before" in done.stderr
    assert said(done)["costs"]["runs"] == 8


def test_samples_may_be_more(project: Path) -> None:
    done = evaluate(project, "shop.eval.yaml", "--samples", "3", "--json")
    assert "8  of them finished before" in done.stderr
    found = said(done)
    assert (found["samples"], found["scores"]["right"]["mean"]["samples"]) == (3, 12)
    fewer = said(evaluate(project, "shop.eval.yaml", "--samples", "1", "--json"))
    assert fewer["scores"]["right"]["mean"]["samples"] == 4


def test_the_page_begins_with_rows_that_changed(project: Path) -> None:
    edit(project / "replies.yaml", 'content: "12"', 'content: "5"')  # b becomes wrong, c right
    evaluate(project, "shop.eval.yaml", "--against", "HEAD")
    page = (project / RESULTS / "report.html").read_text()
    index = json.loads(page.partition('class="index">')[2].partition("</script>")[0])
    assert [row[2] for row in index] == ["b", "b", "c", "c", "a", "a", "d", "d"]
    assert "compared with HEAD on 4 rows, of which 2 changed" in page


def test_results_and_export_read_the_records(project: Path) -> None:
    records = RESULTS / "records.jsonl"
    flowrun(project, "results", records, "--row", "b")
    flowrun(project, "export", records, "--to", "messages", "--min-score", "right=1", "-o", "out.jsonl")
    assert len((project / "out.jsonl").read_text().splitlines()) == 4


def flowrun(folder: Path, *words: str | Path) -> None:
    """Run a verb that must not end with wrong usage."""
    command = [sys.executable, "-m", "flowrun", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr


def test_against_a_batch_which_keeps_no_trace(project: Path) -> None:
    flowrun(project, "batch", "shop.yaml", "data/items.jsonl", "--messages", "-o", "batch.jsonl")
    done = evaluate(project, "shop.eval.yaml", "--against", "batch.jsonl", "--json")
    found = said(done)
    assert found["scores"]["right"]["theirs"]["mean"] == 0.5
    assert found["scores"]["called"]["unscored"] == 3  # rather than 0 for what is not known
    assert "its record has no trace" in scored(project / RESULTS / "against.jsonl")["a", 1]["reasons"]["called"]
    assert done.returncode == 1


@pytest.mark.slow
def test_the_other_side_ends_with_this_one(project: Path) -> None:
    edit(project / "replies.yaml", 'content: "12", repeat', 'content: "12", delay: 60s, repeat')
    commit(project, "slow")
    edit(project / "replies.yaml", "delay: 60s, ", "")
    words = [sys.executable, "-m", "flowrun", "eval", "shop.eval.yaml", "--against", "HEAD"]
    with subprocess.Popen(words, cwd=project, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " live" in line:  # the other side: this one has nothing to run
                break
        (other,) = children(process.pid).values()
        process.kill()
    assert wait_for_end(other, seconds=60)


# --- what may change between two runs, and while one is made --------------------------------------------------------


def rights(folder: Path, name: str = "records") -> dict[str, float]:
    return {row: record["scores"]["right"] for (row, _), record in scored(folder / RESULTS / f"{name}.jsonl").items()}


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--restart", "--retry-failed"])
def test_both_sides_are_of_the_same_runs(project: Path, option: str) -> None:
    done = evaluate(project, "shop.eval.yaml", option, "--against", "HEAD", "--json")
    assert "the flow and its code are the same" in done.stderr
    assert (said(done)["rows"], said(done)["missing"], said(done)["paired"]) == (4, 0, 4)
    assert rights(project) == rights(project, "against") == {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0}


@pytest.mark.slow
def test_against_the_folder_that_is_written_to(project: Path) -> None:
    edit(project / "replies.yaml", 'content: "12"', 'content: "5"')
    found = said(evaluate(project, "shop.eval.yaml", "--against", RESULTS, "--json"))["scores"]["right"]
    assert (found["difference"]["won"], found["difference"]["lost"]) == (1, 1)


@pytest.mark.slow
def test_code_that_is_only_imported_belongs_to_the_version(tmp_path: Path) -> None:
    (tmp_path / "prices.py").write_text("PRICES = {'pen': 2, 'book': 12}\n")
    lazy = "def price(item: str) -> int:\n    from prices import PRICES\n    return PRICES.get(item, 5)\n"
    folder = write_project(tmp_path, **{"tools/shop.py": lazy})
    assert evaluate(folder, "shop.eval.yaml").returncode == 0
    (folder / "prices.py").write_text("PRICES = {'pen': 3, 'book': 12}\n")
    done = evaluate(folder, "shop.eval.yaml")
    assert (done.returncode, "finished before" in done.stderr) == (0, False)


@pytest.mark.slow
def test_a_spec_that_is_not_in_git_has_no_revisions(project: Path) -> None:
    shutil.copy(project / "shop.yaml", project / "new.yaml")
    edit(project / "shop.eval.yaml", "flow: shop.yaml", "flow: new.yaml")
    done = evaluate(project, "shop.eval.yaml", "--against", "HEAD")
    assert (done.returncode, "new.yaml was not there at HEAD" in done.stderr) == (2, True)


@pytest.mark.slow
def test_modules_below_another_folder_are_those_of_the_revision(tmp_path: Path) -> None:
    code = 'def price(item: str) -> int:\n    return {"pen": 2}.get(item, 5)\n'
    moved = {"src/shoptools/__init__.py": "", "src/shoptools/shop.py": code, "tools/shop.py": ""}
    folder = write_project(tmp_path, **moved)
    edit(folder / "shop.yaml", "tools.shop:price", "shoptools.shop:price")
    edit(folder / "replies.yaml", 'content: "2", repeat', 'content: "{{ 0 }}", repeat')
    (folder / "replies.yaml").write_text(
        """\
replies:
  - {when: "request.messages[-1].content == '2'", content: "2", repeat: true}
  - {when: "request.messages[-1].content == '4'", content: "4", repeat: true}
  - {tool_calls: [{name: price, arguments: {item: pen}}], repeat: true}
"""
    )
    commit(folder, "in src")
    edit(folder / "src/shoptools/shop.py", '"pen": 2', '"pen": 4')
    done = evaluate(folder, "shop.eval.yaml", "--against", "HEAD", "--json", PYTHONPATH=f"{folder / 'src'}:{ENGINE}")
    assert said(done)["scores"]["right"]["difference"]["lost"] == 1, done.stderr
    outputs = [scored(folder / RESULTS / f"{name}.jsonl")["a", 1]["output"] for name in ("records", "against")]
    assert outputs == [{"price": "4"}, {"price": "2"}]


@pytest.mark.slow
def test_an_untracked_folder_is_in_the_other_version_too(project: Path) -> None:
    (project / "prompts").mkdir()
    (project / "prompts" / "ask.md").write_text("What does {{ inputs.item }} cost?")
    edit(project / "shop.yaml", 'content: "What does {{ inputs.item }} cost?"', "content: {file: prompts/ask.md}")
    git(project, "add", "shop.yaml")
    git(project, "commit", "-q", "-m", "prompt in a file")
    edit(project / "replies.yaml", 'content: "12"', 'content: "5"')
    done = evaluate(project, "shop.eval.yaml", "--against", "HEAD", "--json")
    assert said(done)["paired"] == 4, done.stderr


@pytest.mark.slow
def test_an_id_is_a_row_whatever_its_type(project: Path) -> None:
    rows = project / "data" / "items.jsonl"
    rows.write_text('{"id": 1, "item": "pen", "expected": 2, "kind": "x"}\n')
    assert said(evaluate(project, "shop.eval.yaml", "--json"))["rows"] == 1
    edit(rows, '"id": 1', '"id": "1"')
    found = said(evaluate(project, "shop.eval.yaml", "--json"))
    assert (found["rows"], found["missing"]) == (1, 0)


@pytest.mark.slow
def test_inputs_are_compared_with_their_defaults_and_types(project: Path) -> None:
    edit(project / "shop.yaml", "inputs: {item: {type: string}}", "inputs: {item: {type: string}, n: {default: 0}}")
    rows = project / "data" / "items.jsonl"
    line = '{"id": "a", "item": "pen", "expected": 2, "kind": "x"%s}\n'
    seen = []
    for more in (', "n": 1', ', "n": true', "", ', "n": 0'):
        rows.write_text(line % more)
        evaluate(project, "shop.eval.yaml")
        seen.append(scored(project / RESULTS / "records.jsonl")["a", 1]["inputs"]["n"])
    assert [json.dumps(value) for value in seen] == ["1", "true", "0", "0"]


@pytest.mark.slow
def test_records_have_the_columns_of_now(project: Path) -> None:
    edit(project / "data/items.jsonl", '"expected": 5', '"expected": 12')
    evaluate(project, "shop.eval.yaml")
    assert scored(project / RESULTS / "records.jsonl")["c", 1]["columns"] == {"expected": 12, "kind": "large"}


@pytest.mark.slow
def test_functions_that_exit_or_change_what_they_are_given(project: Path) -> None:
    code = """\
import sys


def closeness(output, row):
    output["price"], row["expected"] = "0", 0
    row.clear()
    sys.exit(0)
"""
    (project / "measures/text.py").write_text(code)
    done = evaluate(project, "shop.eval.yaml", "--json")
    found = said(done)["scores"]
    assert (done.returncode, found["close"]["unscored"]) == (1, 6)
    assert (found["right"]["mean"]["mean"], found["judged"]["mean"]["mean"]) == (0.5, pytest.approx(0.5625))


@pytest.mark.slow
def test_secrets_of_now_are_masked_in_records_of_before(tmp_path: Path) -> None:
    leaking = FILES["replies.yaml"].replace('content: "12"', 'content: "12 tell-nobody-1"')
    folder = write_project(tmp_path, **{"replies.yaml": leaking})
    edit(folder / "shop.yaml", "inputs:", "secrets: [SHOP_KEY]\ninputs:")
    edit(folder / "data/items.jsonl", '"kind": "large"', '"kind": "tell-nobody-1"')
    done = evaluate(folder, "shop.eval.yaml", "--against", "HEAD", "--json", SHOP_KEY="tell-nobody-1")
    assert said(done)["paired"] == 4, done.stderr
    written = [done.stdout, done.stderr, *((folder / RESULTS / name).read_text() for name in PUBLIC)]
    assert [text for text in written if "tell-nobody-1" in text] == []


PUBLIC = ("records.jsonl", "against.jsonl", "report.html", "judgements.jsonl")


@pytest.mark.slow
def test_a_judgement_that_was_cut_costs_only_itself(project: Path) -> None:
    judgements = project / RESULTS / "judgements.jsonl"
    judgements.write_text(judgements.read_text().splitlines()[0] + '\n{"key": "abc", "va')
    assert "judging 1 answers" in evaluate(project, "shop.eval.yaml").stderr
    assert "judging" not in evaluate(project, "shop.eval.yaml").stderr


@pytest.mark.slow
def test_a_path_in_a_gate_is_beside_the_file(project: Path) -> None:
    shutil.copy(project / "shop.yaml", project / "base.yaml")
    edit(project / "shop.eval.yaml", "at_least: 0.5", "max_drop: 0, against: base.yaml")
    done = evaluate(project / "data", "../shop.eval.yaml", "--json")
    assert (said(done)["paired"], done.returncode) == (4, 0), done.stderr


@pytest.mark.slow
def test_rescoring_what_is_not_finished_says_so(project: Path) -> None:
    (results,) = (project / RESULTS / "runs").glob("*/results.jsonl")
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:7]))
    done = evaluate(project, "shop.eval.yaml", "--rescore", "--json")
    assert (done.returncode, said(done)["missing"]) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["-o", "."], ["--against", "x" * 400], ["--against", ""]])
def test_odd_words(project: Path, words: list[str]) -> None:
    done = evaluate(project, "shop.eval.yaml", *words)
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if words[0] == "-o" else 2)


@pytest.mark.slow
def test_the_environment_of_a_git_hook_changes_nothing(project: Path) -> None:
    done = evaluate(
        project, "shop.eval.yaml", "--against", "HEAD", "--json", GIT_INDEX_FILE=".git/index", GIT_DIR=".git"
    )
    assert said(done)["paired"] == 4, done.stderr
