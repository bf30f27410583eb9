"""What a model is asked with, besides the messages: known when the spec is compiled, or rendered for each request."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from flowrun.core.events import ToolDeclaration
from flowrun.core.run import RequestSettings
from flowrun.core.state_node import StateFailure
from flowrun.core.states.compiler import Compiler
from flowrun.excerpts import shortened
from flowrun.spec.model import CHOICES, JSON, AskingState, ChatState, ResponseFormat, is_template
from flowrun.templates import Evaluator, Scope, compile_text, compile_value

_SHOWN: Final = 80  # characters


class ModelSettings(msgspec.Struct, frozen=True):
    """What a request to a model of the flow is made with: the name of its backend, and the sampling.

    ``keeps_reasoning`` says whether the reasoning of replies stays in the thread.
    """

    backend: str
    sampling: Mapping[str, JSON]
    keeps_reasoning: bool


class ChosenModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model of a state, which a template may choose.

    Attributes:
        name: returns what was written, or what its template gives.
        models: the models of the flow that may be asked.
    """

    name: Evaluator
    models: Mapping[str, ModelSettings]

    def render(self, scope: Scope) -> ModelSettings:
        """Return the settings of the model.

        Raises:
            StateFailure: ``template.failed``: a template gives what is no model.
            TemplateError: a template cannot be evaluated.
        """
        name = self.name(scope)
        if name not in self.models:
            raise _no_such("model", name, self.models)
        return self.models[name]


def compile_model(state: AskingState, compiler: Compiler) -> ChosenModel:
    """Compile the model of a state."""
    spec = compiler.spec
    return ChosenModel(
        name=compile_text(state.model),
        models={
            name: ModelSettings(compiler.backends.get(name, name), sampling, spec.models[name].reasoning == "keep")
            for name, sampling in spec.samplings_of(state).items()
        },
    )


class ComputedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of which a template gives one or more.

    Attributes:
        declarations: the tools of the flow that may be offered.
        tools, tool_choice: return what was written, or what its template gives.
        calls_first: the state runs the calls of its replies: where it offers tools, no format is asked for.
        choices: returns those of ``response_format``; None if it has none, or no template gives one of them.
    """

    state: str
    declarations: Mapping[str, ToolDeclaration]
    model: ChosenModel
    tools: Evaluator
    tool_choice: Evaluator
    response_format: ResponseFormat | None
    calls_first: bool
    choices: Evaluator | None

    def render(self, scope: Scope) -> RequestSettings:
        """Render the settings of a request.

        Raises:
            StateFailure: ``template.failed``: a template gives what is no name, or none that can be.
            TemplateError: a template cannot be evaluated.
        """
        model, tools, choice = self.model.render(scope), self.tools(scope), self.tool_choice(scope)
        if not isinstance(tools, Sequence) or isinstance(tools, str):
            raise _no_such("tools", tools, ("a list of names",))
        if unknown := [tool for tool in tools if not isinstance(tool, str) or tool not in self.declarations]:
            raise _no_such("tools", unknown[0], self.declarations)
        if choice not in (*CHOICES, *(tools or self.declarations)):  # without tools, it asks for nothing
            raise _no_such("tool_choice", choice, (*CHOICES, *tools))
        form = self.response_format
        if form is not None and self.choices is not None:
            form = msgspec.structs.replace(form, choices=_checked_choices(self.choices(scope)))
        return self.settings(model, tuple(dict.fromkeys(tools)), choice, form)

    def settings(
        self, model: ModelSettings, tools: tuple[str, ...], tool_choice: str, form: ResponseFormat | None
    ) -> RequestSettings:
        """Return the settings of a request to a model of the flow, with tools of the flow."""
        return RequestSettings(
            state=self.state,
            model=model.backend,
            sampling=model.sampling,
            tools=tuple(self.declarations[tool] for tool in tools),
            offered=tools,
            tool_choice=tool_choice,
            response_format=None if self.calls_first and tools and tool_choice != "none" else form,
            computed_form=None if self.choices is None else form,
            keeps_reasoning=model.keeps_reasoning,
        )


def _checked_choices(choices: Any) -> tuple[str, ...]:
    """Return the choices that templates gave.

    Raises:
        StateFailure: they are no list of different texts.
    """
    texts = [one for one in choices if isinstance(one, str) and one] if isinstance(choices, Sequence) else []
    if isinstance(choices, str) or not texts or len(set(texts)) < len(choices):
        given = shortened(repr(choices), _SHOWN)
        raise StateFailure("template.failed", f"choices gave {given}, which is no list of different texts")
    return tuple(texts)


def _no_such(key: str, value: Any, known: Iterable[str]) -> StateFailure:
    given = shortened(repr(value), _SHOWN)
    return StateFailure("template.failed", f"{key} gave {given}; there are: {', '.join(known) or 'none'}")


def compile_settings(name: str, state: ChatState, compiler: Compiler) -> RequestSettings | ComputedSettings:
    """Compile the settings of a state that asks a model."""
    form, tools = state.response_format, state.tools_among(compiler.spec.tools)
    computed = ComputedSettings(
        state=name,
        declarations={tool: compiler.declarations[tool] for tool in tools},
        model=compile_model(state, compiler),
        tools=compile_value(state.tools if is_template(state.tools) else list(tools)),
        tool_choice=compile_text(state.tool_choice),
        response_format=form,
        calls_first=state.makes_calls,
        choices=compile_value(form.choices) if form is not None and form.is_computed else None,
    )
    if computed.choices is not None or any(map(is_template, (state.model, state.tools, state.tool_choice))):
        return computed
    return computed.settings(computed.model.models[state.model], tools, state.tool_choice, form)
