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


class ChosenModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model of a state, which a template may choose.

    Attributes:
        name: returns what was written, or what its template gives.
        backends: the models of the flow that may be asked, each with the name of its backend.
        samplings: the sampling by the model.
    """

    name: Evaluator
    backends: Mapping[str, str]
    samplings: Mapping[str, Mapping[str, JSON]]

    def render(self, scope: Scope) -> tuple[str, Mapping[str, JSON]]:
        """Return the name of the backend, and the sampling.

        Raises:
            StateFailure: ``template.failed``: a template gives what is no model.
            TemplateError: a template cannot be evaluated.
        """
        name = self.name(scope)
        if name not in self.backends:
            raise _no_such("model", name, self.backends)
        return self.backends[name], self.samplings[name]


def compile_model(state: AskingState, compiler: Compiler) -> ChosenModel:
    """Compile the model of a state, with the sampling that the spec and the model give."""
    spec, models = compiler.spec, state.models_among(compiler.spec.models)
    return ChosenModel(
        name=compile_text(state.model),
        backends={model: compiler.backends.get(model, model) for model in models},
        samplings={model: {**spec.sampling, **spec.models[model].sampling} for model in models},
    )


class ComputedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of which a template gives one or more.

    Attributes:
        declarations: the tools of the flow that may be offered.
        backends: the models of the flow that may be asked, each with the name of its backend.
        samplings: the sampling by the model that is asked.
        keeps_reasoning: whether the reasoning stays in the thread, by the model that is asked.
        model, tools, tool_choice: return what was written, or what its template gives.
        calls_first: the state runs the calls of its replies: where it offers tools, no format is asked for.
        choices: returns those of ``response_format``; None if it has none, or no template gives one of them.
    """

    state: str
    declarations: Mapping[str, ToolDeclaration]
    backends: Mapping[str, str]
    samplings: Mapping[str, Mapping[str, JSON]]
    model: Evaluator
    tools: Evaluator
    tool_choice: Evaluator
    response_format: ResponseFormat | None
    keeps_reasoning: Mapping[str, bool]
    calls_first: bool
    choices: Evaluator | None

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
        form = self.response_format
        if form is not None and self.choices is not None:
            form = msgspec.structs.replace(form, choices=_checked_choices(self.choices(scope)))
        return self.settings(model, tuple(dict.fromkeys(tools)), choice, form)

    def settings(
        self, model: str, tools: tuple[str, ...], tool_choice: str, form: ResponseFormat | None
    ) -> RequestSettings:
        """Return the settings of a request to a model of the flow, with tools of the flow."""
        return RequestSettings(
            state=self.state,
            model=self.backends[model],
            sampling=self.samplings[model],
            tools=tuple(self.declarations[tool] for tool in tools),
            offered=tools,
            tool_choice=tool_choice,
            response_format=None if self.calls_first and tools and tool_choice != "none" else form,
            computed_form=None if self.choices is None else form,
            keeps_reasoning=self.keeps_reasoning[model],
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


def has_template(form: ResponseFormat) -> bool:
    """Return whether templates give choices of a response_format."""
    choices = form.choices
    return is_template(choices) or (isinstance(choices, Sequence) and any(map(is_template, choices)))


def _no_such(key: str, value: Any, known: Iterable[str]) -> StateFailure:
    given = shortened(repr(value), _SHOWN)
    return StateFailure("template.failed", f"{key} gave {given}; there are: {', '.join(known) or 'none'}")


def compile_settings(name: str, state: ChatState, compiler: Compiler) -> RequestSettings | ComputedSettings:
    """Compile the settings of a state that asks a model."""
    spec, form = compiler.spec, state.response_format
    models, tools = state.models_among(spec.models), state.tools_among(spec.tools)
    computed = ComputedSettings(
        state=name,
        declarations={tool: compiler.declarations[tool] for tool in tools},
        backends={model: compiler.backends.get(model, model) for model in models},
        samplings={model: {**spec.sampling, **spec.models[model].sampling, **state.sampling} for model in models},
        model=compile_text(state.model),
        tools=compile_value(state.tools if is_template(state.tools) else list(tools)),
        tool_choice=compile_text(state.tool_choice),
        response_format=form,
        keeps_reasoning={model: spec.models[model].reasoning == "keep" for model in models},
        calls_first=state.makes_calls,
        choices=None if form is None or not has_template(form) else compile_value(form.choices),
    )
    if computed.choices is not None or any(map(is_template, (state.model, state.tools, state.tool_choice))):
        return computed
    return computed.settings(state.model, tools, state.tool_choice, form)
