"""A run that has ended, or waits, as JSON data: what ``--json`` prints and a batch writes."""

import json
from typing import Any

import msgspec

from flowrun.core.messages import as_openai
from flowrun.runtime.runner import Result
from flowrun.spec.model import MAIN


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
    return {"run": result.run.id, **outcome_of(result), **messages_of(result), **waiting_of(result)}


def outcome_of(result: Result) -> dict[str, Any]:
    """Give how a run ended, and what it took."""
    run = result.run
    outcome = run.outcome
    open_status = "needs_attention" if result.doubtful else "waiting"
    return {
        "status": open_status if outcome is None else outcome.status,
        "output": None if outcome is None else outcome.output,
        "error": None if outcome is None or outcome.error is None else msgspec.to_builtins(outcome.error),
        "path": list(run.path),
        "rounds": run.rounds,
        "usage": msgspec.to_builtins(run.usage),
    }


def messages_of(result: Result) -> dict[str, Any]:
    """Give what was said, in the form of the OpenAI chat API; other threads than the main one only if there are any."""
    threads = {name: [as_openai(message) for message in log] for name, log in result.run.threads.items()}
    main = threads.pop(MAIN, [])
    return {"messages": main, "threads": threads} if threads else {"messages": main}


def waiting_of(result: Result) -> dict[str, Any]:
    """Give what a run waits for an answer to, and its calls in doubt, if there are any."""
    asks = [{"run": ask.run, "state": ask.state, "prompt": ask.prompt, "schema": ask.schema} for ask in result.waiting]
    calls = [
        {
            "run": call.run,
            "state": call.state,
            "call": call.key,
            "entrypoint": call.entrypoint,
            "arguments": call.arguments,
        }
        for call in result.doubtful
    ]
    return {**({"waiting": asks} if asks else {}), **({"doubtful": calls} if calls else {})}
