"""What a model is asked with, besides the messages: known when the spec is compiled, or rendered for each request."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from flowrun.core.events import ToolDeclaration
from flowrun.core.run import RequestSettings
from flowrun.core.state_node import StateFailure
from flowrun.core.states.compiler import Compiler
from flowrun.excerpts import shortened
from flowrun.spec.model import CHOICES, JSON, ChatState, ResponseFormat, is_template
from flowrun.templates import Evaluator, Scope, compile_text, compile_value

_SHOWN: Final = 80  # characters


class ComputedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of which a template gives one or more.

    Attributes:
        declarations: the tools of the flow that may be offered.
        backends: the models of the flow that may be asked, each with the name of its backend.
        samplings: the sampling by the model that is asked.
        model, tools, tool_choice: return what was written, or what its template gives.
        calls_first: the state runs the calls of its replies: where it offers tools, no format is asked for.
    """

    state: str
    declarations: Mapping[str, ToolDeclaration]
    backends: Mapping[str, str]
    samplings: Mapping[str, Mapping[str, JSON]]
    model: Evaluator
    tools: Evaluator
    tool_choice: Evaluator
    response_format: ResponseFormat | None
    calls_first: bool

    def render(self, scope: Scope) -> RequestSettings:
        """Render the settings of a request.

        Raises:
            StateFailure: ``template.failed``: a template gives what is no name, or none that can be.
            TemplateError: a template cannot be evaluated.
        """
        model, tools, choice = self.model(scope), self.tools(scope), self.tool_choice(scope)
        if model not in self.backends:
            raise _no_such("model", model, self.backends)
        if not isinstance(tools, Sequence) or isinstance(tools, str):
            raise _no_such("tools", tools, ("a list of names",))
        if unknown := [tool for tool in tools if not isinstance(tool, str) or tool not in self.declarations]:
            raise _no_such("tools", unknown[0], self.declarations)
        if choice not in (*CHOICES, *(tools or self.declarations)):  # without tools, it asks for nothing
            raise _no_such("tool_choice", choice, (*CHOICES, *tools))
        return self.settings(model, tuple(dict.fromkeys(tools)), choice)

    def settings(self, model: str, tools: tuple[str, ...], tool_choice: str) -> RequestSettings:
        """Return the settings of a request to a model of the flow, with tools of the flow."""
        return RequestSettings(
            state=self.state,
            model=self.backends[model],
            sampling=self.samplings[model],
            tools=tuple(self.declarations[tool] for tool in tools),
            offered=tools,
            tool_choice=tool_choice,
            response_format=None if self.calls_first and tools and tool_choice != "none" else self.response_format,
        )


def _no_such(key: str, value: Any, known: Iterable[str]) -> StateFailure:
    given = shortened(repr(value), _SHOWN)
    return StateFailure("template.failed", f"{key} gave {given}; there are: {', '.join(known) or 'none'}")


def compile_settings(name: str, state: ChatState, compiler: Compiler) -> RequestSettings | ComputedSettings:
    """Compile the settings of a state that asks a model."""
    spec = compiler.spec
    models, tools = state.models_among(spec.models), state.tools_among(spec.tools)
    computed = ComputedSettings(
        state=name,
        declarations={tool: compiler.declarations[tool] for tool in tools},
        backends={model: compiler.backends.get(model, model) for model in models},
        samplings={model: {**spec.sampling, **spec.models[model].sampling, **state.sampling} for model in models},
        model=compile_text(state.model),
        tools=compile_value(state.tools if is_template(state.tools) else list(tools)),
        tool_choice=compile_text(state.tool_choice),
        response_format=state.response_format,
        calls_first=state.makes_calls,
    )
    if any(map(is_template, (state.model, state.tools, state.tool_choice))):
        return computed
    return computed.settings(state.model, tools, state.tool_choice)
