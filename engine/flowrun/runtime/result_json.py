"""The result of a run as JSON data: ``--json`` prints it, and a batch writes it."""

import json
from typing import Any

import msgspec

from flowrun.core.messages import as_openai
from flowrun.runtime.runner import Result
from flowrun.spec.model import MAIN


def answer_of(result: Result) -> str | None:
    """Return the text for stdout: the output if it is a text, or its only member if that is a text; else its JSON."""
    outcome = result.run.outcome
    output = outcome.output if outcome is not None else None
    if isinstance(output, dict) and len(output) == 1:
        (output,) = output.values()
    if output is None or isinstance(output, str):
        return output
    return json.dumps(output, ensure_ascii=False, indent=2)


def encode_result(result: Result) -> dict[str, Any]:
    """Return a full result as JSON data; ``threads`` and ``waiting`` only if there are any."""
    return {"run": result.run.id, **encode_outcome(result), **encode_messages(result), **encode_waiting(result)}


def encode_outcome(result: Result) -> dict[str, Any]:
    """Return the status, output, error, path, rounds and tokens of a run as JSON data."""
    run = result.run
    outcome = run.outcome
    open_status = "needs_attention" if result.in_doubt else "waiting"
    return {
        "status": open_status if outcome is None else outcome.status,
        "output": None if outcome is None else outcome.output,
        "error": None if outcome is None or outcome.error is None else msgspec.to_builtins(outcome.error),
        "path": list(run.path),
        "rounds": run.rounds,
        "usage": msgspec.to_builtins(run.usage),
    }


def encode_messages(result: Result) -> dict[str, Any]:
    """Return the messages, in the form of the OpenAI chat API; ``threads`` only if there are others than ``main``."""
    threads = {name: [as_openai(message) for message in log] for name, log in result.run.threads.items()}
    main = threads.pop(MAIN, [])
    return {"messages": main, "threads": threads} if threads else {"messages": main}


def encode_waiting(result: Result) -> dict[str, Any]:
    """Return the open questions and the in-doubt calls of a run, if there are any."""
    asks = [{"run": ask.run, "state": ask.state, "prompt": ask.prompt, "schema": ask.schema} for ask in result.waiting]
    calls = [
        {
            "run": call.run,
            "state": call.state,
            "call": call.key,
            "entrypoint": call.entrypoint,
            "arguments": call.arguments,
        }
        for call in result.in_doubt
    ]
    return {**({"waiting": asks} if asks else {}), **({"doubtful": calls} if calls else {})}
