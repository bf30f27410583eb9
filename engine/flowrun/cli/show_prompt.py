"""``flowrun show --prompt``: prints what a model read in one step of a durable run."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, hide, indented_json, write_answer, write_json
from flowrun.errors import UsageError
from flowrun.journal import History
from flowrun.runtime.prompt_reading import PromptRead, read_prompt
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec import mask

if TYPE_CHECKING:
    from flowrun.transcript.requests import Asked

_LISTED: Final = 12
"""Steps that an error names."""


def show_prompt(history: History, run: str, place: str, *, json: bool) -> int:
    """Print what the model read in a step; return 1 if it would read something else today.

    Args:
        run: the id of a run, or the beginning of it.
        place: the step, behind the place of the sub-flow's run if it is one of a sub-flow: ``3``, ``1.0/3``.

    Raises:
        UsageError: no model was asked in such a step.
        FlowrunError: the prompt cannot be read. See ``read_prompt``.
    """
    from flowrun.transcript.requests import requests_of

    row = history.top_run(run)
    flow = load_stored_flow(history, row).prepare_to_show(os.environ)
    hide(flow.secrets)
    histories = {name: history.events(name) for name in history.descendants(row.id)}
    asked = find_request(list(requests_of(flow.graph, history.events(row.id), histories)), row.id, place)
    work = read_prompt(flow, asked.request, asked.reply, keeps_tokens=asked.keeps_tokens)
    found = mask(run_in_loop(work), flow.secrets)
    with answer_stream() as answers:
        if json:
            write_json(answers, indented_json(found))
        elif found.text is not None:
            write_answer(answers, found.text)
        else:
            write_json(answers, indented_json(found.body))
    echo(describe_prompt(found), err=True)
    return 1 if found.same is False else 0


def find_request(requests: "Sequence[Asked]", run: str, place: str) -> "Asked":
    """Return the request of a step.

    Raises:
        UsageError: there is none; it names the steps in which a model was asked.
    """
    below, _, step = place.rpartition("/")
    name = run if below in ("", run) else below if below.startswith(f"{run}.") else f"{run}.{below}"
    for asked in requests:
        if (asked.request.run, str(asked.request.step)) == (name, step):
            return asked
    steps = [_place_of(one, run) for one in requests]
    known = ", ".join(steps[:_LISTED]) + (f" and {len(steps) - _LISTED} more" if len(steps) > _LISTED else "")
    where = f"in step {step or place!r} of run {name}" if step.isdecimal() else f"in {place!r}, which is no step"
    raise UsageError(f"no model was asked {where}; one was in: {known or 'no step at all'}")


def _place_of(asked: "Asked", run: str) -> str:
    request = asked.request
    below = request.run.removeprefix(run).removeprefix(".")
    return f"{below}/{request.step} ({request.state})" if below else f"{request.step} ({request.state})"


def describe_prompt(prompt: PromptRead) -> str:
    """Return a sentence about where a prompt is from."""
    where = f"run {prompt.run}, step {prompt.step}, state {prompt.state}"
    if prompt.token_ids is None:
        return f"{where}: what the server of {prompt.model} was sent"
    what = f"{where}: {len(prompt.token_ids):,} tokens of {prompt.model}"
    if prompt.same is None:
        return f"{what}, rendered anew: the run kept no tokens of this step to compare them with"
    if prompt.same:
        return f"{what}, the very ones that it read"
    return f"{what}, which are NOT those that it read: its chat template, its tokenizer or its engine has changed since"
