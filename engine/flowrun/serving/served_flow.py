"""A flow as a model of the chat API: what a request gives it, and which of its texts are the answer."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from flowrun.runtime.project import CompiledFlow
from flowrun.serving.api_errors import ApiError
from flowrun.serving.chat_request import ChatRequest
from flowrun.spec import mask
from flowrun.spec.json_types import may_be_text
from flowrun.spec.model import JSON, ChatState, EndState, Serve, Spec
from flowrun.spec.strict_json import parse_json
from flowrun.templates import Evaluator, TemplateError, compile_value
from flowrun.templates.reads import reads_of_template

_CONTENT: Final = re.compile(r"\{\{\s*(reply|outputs\.\w+)\.content\s*\}\}")
"""A template that is the text of a reply, and nothing else."""


class ServedFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow that answers requests.

    Attributes:
        created: when its spec was written, in seconds since the epoch.
        render: makes inputs of a request; None: the flow takes inputs by their names only.
        takes_history: the flow reads the messages before the last one.
        answering: the states whose text, as the model writes it, is the flow's answer.
    """

    flow: CompiledFlow
    created: int
    render: Evaluator | None
    takes_content: bool
    takes_history: bool
    answering: frozenset[str]

    @property
    def name(self) -> str:
        """Return the name of the model."""
        return self.flow.spec.name

    def masked(self, text: str) -> str:
        """Return a text without the flow's secrets."""
        found: str = mask(text, self.flow.secrets)
        return found

    def inputs_of(self, request: ChatRequest) -> dict[str, JSON]:
        """Return the inputs of a run that answers a request.

        Raises:
            ApiError: the flow cannot honour the request, or its inputs do not match what the spec declares.
        """
        seen = request.seen
        history = seen["messages"]
        if len(history) > 1 and not self.takes_history:
            what = f"{self.name} takes one message, the user's last: `serve.inputs` of its spec reads no history"
            raise ApiError(f"{what} (request.messages)", param="messages", code="unsupported_value")
        if self.render is None:
            inputs = ", ".join(self.flow.spec.inputs) or "none"
            what = f"{self.name} has no input that the last message could be (its inputs: {inputs})"
            raise ApiError(f"{what}: add `serve.inputs` to its spec", param="messages", code="unsupported_value")
        if request.has_images and self.takes_content:
            what = f"{self.name} takes the text of the last message only, and it has images"
            raise ApiError(what, param="messages", code="unsupported_value")
        try:
            given = self.render({"request": {**seen, "messages": history[:-1] if self.takes_content else history}})
        except TemplateError as exc:
            raise ApiError(self.masked(f"serve.inputs of {self.name}: {exc}"), code="input.invalid") from exc
        return self.checked({**self._by_name(seen["metadata"]), **given})

    def _by_name(self, metadata: Mapping[str, JSON]) -> dict[str, JSON]:
        """Return the inputs that metadata gives by their names; none if the spec says what requests give."""
        if self.flow.spec.serve is not None:
            return {}
        declared = self.flow.spec.inputs
        return {name: _typed(name, metadata[name], declared[name]) for name in declared if name in metadata}

    def checked(self, inputs: Mapping[str, JSON]) -> dict[str, JSON]:
        """Return inputs that match what the spec declares.

        Raises:
            ApiError: they do not.
        """
        wrong = self.flow.graph.inputs(self.flow.spec.add_defaults(inputs))
        if wrong is not None:
            raise ApiError(
                self.masked(f"the inputs do not match what {self.name} declares: {wrong}"), code="input.invalid"
            )
        return dict(inputs)


def serve_flow(flow: CompiledFlow) -> ServedFlow:
    """Return a flow to serve."""
    serve = flow.spec.serve or _default_serve(flow.spec)
    roots = (
        set() if serve is None else {path for text in _texts(serve.inputs) for path in reads_of_template(text).paths}
    )
    members = {path[1] for path in roots if len(path) > 1}
    return ServedFlow(
        flow=flow,
        created=int(flow.path.stat().st_mtime),
        render=None if serve is None else compile_value(dict(serve.inputs)),
        takes_content="content" in members,
        takes_history="messages" in members,
        answering=frozenset(_answering(flow.spec)),
    )


def _default_serve(spec: Spec) -> Serve | None:
    """Return what a spec that does not say it makes of a request: the message is the only input that it can be."""
    texts = [name for name, schema in spec.inputs.items() if may_be_text(schema)]
    needed = [name for name in texts if "default" not in spec.inputs[name]]
    for names in (texts, needed):
        if len(names) == 1:
            return Serve(inputs={names[0]: "{{ request.content }}"})
    return None


def _texts(value: JSON) -> list[str]:
    if isinstance(value, str):
        return [value]
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return [text for member in members for text in _texts(member)]


def _typed(name: str, value: Any, schema: Mapping[str, JSON]) -> JSON:
    """Return a value of metadata, which is text for most clients, as its input has it."""
    if not isinstance(value, str) or may_be_text(schema):
        return value
    try:
        return parse_json(value)
    except ValueError as exc:
        raise ApiError(f"metadata.{name} is no JSON, and the input is no text: {exc}", param="metadata") from exc


def _answering(spec: Spec) -> list[str]:
    """Return the chats from which a route leads to an end whose output is the text of their reply.

    One whose reply must have a form is none of them: until all of it is there, it may be void.
    """
    ends = {
        name: found[1]
        for name, state in spec.states.items()
        if isinstance(state, EndState) and state.status == "succeeded" and (found := _only_text(state.output))
    }
    return [
        name
        for name, state in spec.states.items()
        if isinstance(state, ChatState)
        and state.response_format is None
        and any(ends.get(route.to) in ("reply", f"outputs.{name}") for route in state.routes)
    ]


def _only_text(output: JSON) -> re.Match[str] | None:
    """Return the reply whose text is all of an output, itself or as its only member."""
    if isinstance(output, Mapping) and len(output) == 1:
        (output,) = output.values()
    return _CONTENT.fullmatch(output.strip()) if isinstance(output, str) else None
