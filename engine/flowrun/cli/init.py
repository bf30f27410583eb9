"""``flowrun init``: makes a project that runs and tests at once, with a scripted model."""

import os
import shlex
from pathlib import Path

import click

from flowrun.cli.terminal import echo
from flowrun.errors import UsageError
from flowrun.starters import EXAMPLES, KINDS, copy_example, make_project, write_project


@click.command()
@click.argument("folder", metavar="[NAME]", required=False, type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(KINDS), help="What the flow is for.  [default: agent]")
@click.option("--example", type=click.Choice(list(EXAMPLES)), help="Copy a worked example instead, with its tests.")
def command(folder: Path | None, kind: str | None, example: str | None) -> int:
    """Make a project in a new folder: a spec, its tests, Python functions, checks for CI, a README.

    NAME is the folder and the flow's name. Nothing needs a model: the model is scripted until a profile names a real
    one. agent calls tools, extract fills a form, batch runs a row of a file each, approval waits for a person. With
    --example, NAME may be left out.
    """
    if example is not None and kind is not None:
        raise UsageError("--example and --kind do not go together: an example is as it is")
    folder = folder or (None if example is None else Path(example))
    if folder is None:
        raise UsageError("give the project a name: flowrun init shop")
    name = os.path.basename(os.path.abspath(folder))
    spec = f"specs/{name if example is None else example}.yaml"
    write_project(folder, make_project(name, kind or KINDS[0]) if example is None else copy_example(example))
    echo(f"{folder} is made. Next:")
    for line in (shlex.join(["cd", str(folder)]), "flowrun validate", "flowrun test", f"flowrun {spec}"):
        echo(f"  {line}")
    return 0
