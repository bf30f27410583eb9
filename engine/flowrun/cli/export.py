"""``flowrun export``: writes results in a form that trainers read."""

from pathlib import Path
from typing import Final

import click

from flowrun.cli.terminal import echo
from flowrun.errors import UsageError
from flowrun.records.export import Choice, export
from flowrun.records.training_forms import FORMS, Form


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(FORMS), required=True, help="The form of the rows.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="As its suffix says: .jsonl or .parquet.",
)
@click.option("--min-score", "scores", multiple=True, metavar="NAME=X", help="Only records with this score at least.")
@click.option("--best-of", metavar="NAME", help="Of each row's samples only the one with the highest score.")
@click.option("--dedupe", is_flag=True, help="Leave out a row that another one equals.")
def command(results: Path, form: Form, output: Path, scores: tuple[str, ...], best_of: str | None, dedupe: bool) -> int:
    """Write the RESULTS of runs that succeeded as rows to train on.

    messages: the messages of each thread, and the tools; trl: input_ids and assistant_masks where the results have
    tokens, else messages and tools; tokens: ids, mask and logprobs; atif: a trajectory for each run.
    """
    if output.exists() and results.exists() and output.samefile(results):
        raise UsageError(f"-o {output} is the results themselves: name another file")
    choice = Choice(min_scores=dict(map(_min_score, scores)), best_of=best_of, dedupe=dedupe)
    counts = export(results, form, output, choice)
    written = counts.pop("written", 0)
    echo(f"{written:,} rows written to {output}", err=True)
    for reason, count in counts.most_common():
        echo(f"{count:,} left out: {reason}", err=True)
    return 0 if written else EXIT_EMPTY


EXIT_EMPTY: Final = 1
"""Nothing was written."""


def _min_score(text: str) -> tuple[str, float]:
    name, equals, number = text.partition("=")
    try:
        if not equals or not name:
            raise ValueError
        return name, float(number)
    except ValueError:
        raise UsageError(f"--min-score {text}: write NAME=NUMBER, such as right=1") from None
