"""A run that has ended, as the command line shows it."""

import json
from typing import Any

import msgspec

from flowrun.messages import as_openai
from flowrun.runner import Result
from flowrun.spec import MAIN


def answer_of(result: Result) -> str | None:
    """Give what stdout holds: the output's text if it is one text, or has just one member that is; else its JSON."""
    outcome = result.run.outcome
    output = outcome.output if outcome is not None else None
    if isinstance(output, dict) and len(output) == 1:
        (output,) = output.values()
    if output is None or isinstance(output, str):
        return output
    return json.dumps(output, ensure_ascii=False, indent=2)


def result_of(result: Result) -> dict[str, Any]:
    """Give the whole result as JSON data; ``threads`` and ``waiting`` only where there are any."""
    run = result.run
    outcome = run.outcome
    data: dict[str, Any] = {
        "run": run.id,
        "status": "waiting" if outcome is None else outcome.status,
        "output": None if outcome is None else outcome.output,
        "error": None if outcome is None or outcome.error is None else msgspec.to_builtins(outcome.error),
        "path": list(run.path),
        "rounds": run.rounds,
        "usage": msgspec.to_builtins(run.usage),
        "messages": [as_openai(message) for message in run.threads.get(MAIN, ())],
    }
    others = {name: [as_openai(message) for message in log] for name, log in run.threads.items() if name != MAIN}
    if others:
        data["threads"] = others
    if result.waiting:
        data["waiting"] = [
            {"run": ask.run, "state": ask.state, "prompt": ask.prompt, "schema": ask.schema} for ask in result.waiting
        ]
    return data
