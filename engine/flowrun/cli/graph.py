"""``flowrun graph``: draws a spec's state graph for documents, reviews and terminals."""

import os
from pathlib import Path

import click

from flowrun.cli.options import profile_option, spec_argument
from flowrun.cli.terminal import echo
from flowrun.drawing import DRAWERS, draw
from flowrun.errors import UsageError
from flowrun.files import file_errors
from flowrun.spec import load_spec
from flowrun.spec.suggestions import suggest


@click.command()
@spec_argument
@click.option("--format", type=click.Choice(list(DRAWERS)), default="text", help="How it is drawn.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.option("--flow", metavar="NAME", help="Draw this local flow of the spec.")
@profile_option
def command(spec: Path, format: str, output: Path | None, flow: str | None, profile: str | None) -> int:
    """Draw the states of a flow and the edges between them.

    mermaid is what GitHub and GitLab show in Markdown, dot is for Graphviz, svg is a picture that needs nothing else,
    text is for the terminal.
    """
    drawn = load_spec(spec, profile=profile, environ=os.environ, require_environment=False).spec
    if flow is not None:
        name = flow.removeprefix("#")
        if name not in drawn.flows:
            raise UsageError(f"{spec} has no local flow {name!r}; {suggest(name, drawn.flows, 'flows')}")
        drawn = drawn.flows[name]
    picture = draw(drawn, format)
    if output is None:
        echo(picture, nl=False)
        return 0
    with file_errors(f"{output} cannot be written"):
        output.write_text(picture, encoding="utf-8")
    return 0
