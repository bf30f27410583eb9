"""The forms in which trainers and other tools read records of results. Pure.

Sources: TRL 1.16 (``SFTTrainer``: a dataset with ``input_ids`` is not prepared again, and ``assistant_masks`` says
which tokens count; ``tools`` may be JSON), verl 0.9 (``MultiTurnSFTDataset``: columns ``messages`` and ``tools``, which
a class in ``docs/results.md`` reads from JSON), ATIF 1.8 (package ``atif``), the messages of the OpenAI chat API.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from flowrun.errors import UsageError
from flowrun.spec.model import MAIN

Form = Literal["messages", "trl", "atif", "tokens"]
FORMS: Final[tuple[Form, ...]] = ("messages", "trl", "atif", "tokens")

ATIF: Final = "ATIF-v1.8"

Record = Mapping[str, Any]

_ORIGIN: Final = ("id", "row", "sample", "seed", "scores")
"""The members of a record that say where a row comes from."""

OPTIONAL: Final = frozenset({*_ORIGIN, "child", "subagent_trajectories"})
"""The members that not every row of a form has."""


def rows_in_form(record: Record, form: Form) -> Iterator[dict[str, Any]]:
    """Yield the rows of a record: of ``tokens`` one for each branch, of ``messages`` one for each thread.

    Raises:
        UsageError: the record does not hold what the form needs.
    """
    match form:
        case "tokens":
            yield from _token_rows(record)
        case "trl" if "tokens" in record:
            for row in _token_rows(record):
                yield {"input_ids": row["ids"], "assistant_masks": row["mask"], **_origin(record)}
        case "messages" | "trl":
            yield from _conversations(record)
        case "atif":
            yield _trajectory(record)


def _origin(record: Record) -> dict[str, Any]:
    named = {name: record[name] for name in _ORIGIN if name in record}
    return {**named, "flow": record["flow"]["name"], "digest": record["flow"]["digest"]}


def _token_rows(record: Record) -> Iterator[dict[str, Any]]:
    if "tokens" not in record:
        raise UsageError(f"{_named(record)} has no tokens: make the results with --tokens")
    for row in record["tokens"]:
        yield {**row, **_origin(record)}


def _conversations(record: Record) -> Iterator[dict[str, Any]]:
    for thread, messages in _threads(record).items():
        if any(message["role"] == "assistant" for message in messages):
            yield {"messages": messages, "tools": record["tools"], "thread": thread, **_origin(record)}


def _threads(record: Record) -> dict[str, Sequence[Mapping[str, Any]]]:
    if "messages" not in record:
        raise UsageError(f"{_named(record)} has no messages: make the results with --messages")
    return {MAIN: record["messages"], **record.get("threads", {})}


def _named(record: Record) -> str:
    return f"the record of row {record['id']}" if "id" in record else "the record"


# --- ATIF


def _trajectory(record: Record) -> dict[str, Any]:
    """Return a run as a trajectory; threads besides ``main`` are those of its subagents."""
    main, *others = _threads(record).items()
    place = ".".join(str(record[name]) for name in ("row", "sample") if name in record) or record.get("run", "")
    usage = record["usage"]
    trajectory = _thread_as_trajectory(record, main[1]) | {
        "session_id": str(place),
        "final_metrics": {
            "total_prompt_tokens": usage["prompt_tokens"],
            "total_completion_tokens": usage["completion_tokens"],
            "total_cached_tokens": usage["cached_tokens"],
        },
        "extra": {**_origin(record), "status": record["status"], "output": record["output"]},
    }
    if others:
        named = (_thread_as_trajectory(record, messages) | {"trajectory_id": name} for name, messages in others)
        trajectory["subagent_trajectories"] = list(named)
    return trajectory


def _thread_as_trajectory(record: Record, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    flow = record["flow"]
    agent = {"name": flow["name"], "version": flow["version"], "extra": {"digest": flow["digest"]}}
    if (model := next(iter(record["models"].values()), None)) is not None:
        agent["model_name"] = model["name"]
    if record["tools"]:
        agent["tool_definitions"] = record["tools"]
    return {"schema_version": ATIF, "agent": agent, "steps": list(_steps(messages))}


def _steps(messages: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the steps of a thread; results of tools belong to the step that called them."""
    step: dict[str, Any] | None = None
    number = 0
    for message in messages:
        if message["role"] == "tool" and step is not None and "tool_calls" in step:
            observed = step.setdefault("observation", {"results": []})["results"]
            observed.append({"source_call_id": message["tool_call_id"], "content": message["content"] or ""})
            continue
        if step is not None:
            yield step
        number += 1
        step = {"step_id": number, "source": _SOURCES[message["role"]], "message": message["content"] or ""}
        if message["role"] == "assistant":
            step |= {"reasoning_content": message["reasoning"]} if "reasoning" in message else {}
            step |= {"tool_calls": [_call(call) for call in message["tool_calls"]]} if "tool_calls" in message else {}
    if step is not None:
        yield step


_SOURCES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "agent", "tool": "system"}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    known = {"tool_call_id": call["id"], "function_name": call["function"]["name"]}
    if isinstance(arguments, str):  # no JSON object
        return {**known, "arguments": {}, "extra": {"arguments": arguments}}
    return {**known, "arguments": arguments}
