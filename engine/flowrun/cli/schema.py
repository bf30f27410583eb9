"""``flowrun schema``: prints the language as JSON Schema and as a reference, and the meaning of issues and errors."""

from collections.abc import Callable, Mapping
from typing import Final

import click

from flowrun.cli.terminal import echo
from flowrun.errors import CODES, FAILURES
from flowrun.spec.schema import EVAL_SCHEMA, FLOW_SCHEMA, RESULT_SCHEMA, TEST_SCHEMA, find_schema, read_schema

_FAMILIES: Final = {
    "FR1": "YAML",
    "FR2": "schema",
    "FR3": "graph",
    "FR4": "templates and expressions",
    "FR5": "tools, entrypoints and JSON Schemas",
    "FR6": "models, sampling and engine arguments",
    "FR7": "references and versions",
    "FR9": "flowrun itself",
}

_OTHERS: Final = {
    TEST_SCHEMA: ("--test", "Reference of spec tests"),
    RESULT_SCHEMA: ("--result", "Reference of results"),
    EVAL_SCHEMA: ("--eval", "Reference of evals"),
}

_PREFACE: Final = """\
<!-- Made of schemas/{name} by `{command}`. Change the schema, then make it anew. -->

Editors that know JSON Schema complete and check a file that begins with
`# yaml-language-server: $schema=<path>/schemas/{name}`."""


@click.command()
@click.option("--test", "schema", flag_value=TEST_SCHEMA, help="The schema of *.test.yaml files rather than of specs.")
@click.option("--result", "schema", flag_value=RESULT_SCHEMA, help="The schema of results: of lines, and of --json.")
@click.option("--eval", "schema", flag_value=EVAL_SCHEMA, help="The schema of *.eval.yaml files.")
@click.option("--doc", "form", flag_value="doc", help="Print the reference as Markdown.")
@click.option("--codes", "form", flag_value="codes", help="Print the codes of issues and what they mean.")
@click.option("--errors", "form", flag_value="errors", help="Print the names of a run's errors and what they mean.")
def command(schema: str | None, form: str | None) -> int:
    """Print the JSON Schema of specs: what may stand where, for editors and other programs."""
    echo(_WRITERS[form](schema or FLOW_SCHEMA), nl=False)
    return 0


def write_schema(schema: str) -> str:
    """Return the unchanged text of a schema's file."""
    return find_schema(schema).read_text(encoding="utf-8")


def write_reference(schema: str) -> str:
    """Return the Markdown reference of a schema; that of specs ends with what templates see, and a run's errors."""
    from flowrun.cli.reference import render_reference
    from flowrun.cli.view_reference import render_views

    if schema != FLOW_SCHEMA:
        option, heading = _OTHERS[schema]
        preface = _PREFACE.format(name=schema, command=f"flowrun schema {option} --doc")
        return render_reference(read_schema(schema), heading=heading, preface=preface)
    preface = _PREFACE.format(name=schema, command="flowrun schema --doc > specs/REFERENCE.md")
    text = render_reference(read_schema(schema), heading="Reference of the spec language", preface=preface)
    rows = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in FAILURES.items())
    failures = f"## Errors of a run\n\nWhat `retry` and `catch` name.\n\n| error | meaning |\n|---|---|\n{rows}\n"
    return f"{text}\n{render_views()}\n\n{failures}"


def write_codes(schema: str) -> str:
    """Return all codes of issues with their meanings, by family."""
    lines: list[str] = []
    for family, subject in _FAMILIES.items():
        codes = {code: meaning for code, meaning in sorted(CODES.items()) if code.startswith(family)}
        if codes:
            lines += ["", f"{family}xx  {subject}", *(f"  {code}  {meaning}" for code, meaning in codes.items())]
    return "\n".join([*lines[1:], "", "Every issue says where it is and what to do about it.", ""])


def write_errors(schema: str) -> str:
    """Return all names of a run's errors with their meanings."""
    width = max(map(len, FAILURES))
    return "".join(f"{name:{width}}  {meaning}\n" for name, meaning in FAILURES.items())


_WRITERS: Final[Mapping[str | None, Callable[[str], str]]] = {
    None: write_schema,
    "doc": write_reference,
    "codes": write_codes,
    "errors": write_errors,
}
