"""What is the same in the prompts of a state in every run: messages that no template changes, and tools. Pure.

It is the least that the state's first prompt holds, so a context window that is too small for it fits no run.
"""

from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import NamedTuple

from flowrun.core.decisions import write_question
from flowrun.core.events import AskModel, ToolDeclaration
from flowrun.core.messages import Log, Message
from flowrun.core.rendering import CompiledMessage, CompiledSay, RenderedMessages, render
from flowrun.core.requests import SETUP_ROLES, Reading
from flowrun.core.run import RequestSettings
from flowrun.core.state_node import Graph, StateNode
from flowrun.core.states.agent import AgentNode
from flowrun.core.states.chat import ChatNode
from flowrun.core.states.decide import DecideNode
from flowrun.core.states.request_settings import ChosenModel, ModelSettings
from flowrun.spec.model import JSON
from flowrun.templates import TemplateError


class MeasuredPrompt(NamedTuple):
    """The length of what is the same in the prompts of a state, and of its model's context window, in tokens.

    ``max_tokens`` are those of the longest reply, if the spec says so.
    """

    state: str
    model: str
    length: int
    window: int
    max_tokens: int | None = None

    @property
    def room(self) -> int:
        """The tokens that are left for all else and the reply."""
        return self.window - self.length

    def __str__(self) -> str:
        what = f"what is the same in each prompt of state {self.state!r}, its messages and tools, is {self.length:,}"
        return f"{what} tokens long, and the context window of {self.model!r} has {self.window:,}"


REMEDY = "shorten the messages, offer fewer tools, or raise engine.max_model_len"
"""What to do about a prompt that is too long."""


def fixed_prompts(graph: Graph) -> Iterator[AskModel]:
    """Yield for each state that asks a model, of this flow alone, a request with what is the same in every run.

    A state whose model a template chooses has one for each model.
    """
    replaced = {said.thread for node in graph.nodes.values() for said in _said_by(node) if said.replace}
    for name, node in graph.nodes.items():
        asking = node.chat if isinstance(node, AgentNode) else node
        if isinstance(asking, ChatNode | DecideNode):
            begins = () if asking.thread in replaced else _first_messages(graph, asking.thread)
            messages = _read(asking.reading, begins, tuple(_own_messages(asking)))
            for model, tools, tool_choice in _settings_of(asking):
                if messages or tools:
                    yield AskModel(
                        step=0,
                        state=name,
                        run="",
                        flow=graph.spec.name,
                        thread=asking.thread,
                        model=model.backend,
                        messages=Log(messages or (Message(role="user", content=""),)),
                        tools=tools,
                        tool_choice=tool_choice,
                        sampling=model.sampling,
                    )


def longest_reply(request: AskModel) -> int | None:
    """Return the ``max_tokens`` of a request; None if it has none."""
    most: JSON = request.sampling.get("max_tokens")
    return most if type(most) is int else None


def _said_by(node: StateNode) -> Iterator[CompiledSay]:
    yield from node.say
    for catch in node.catches:
        yield from catch.say


def _first_messages(graph: Graph, thread: str) -> tuple[Message, ...]:
    prologue = graph.threads.get(thread)
    return () if prologue is None else prologue.ready.messages


def _own_messages(node: ChatNode | DecideNode) -> Iterable[Message]:
    """Return the messages that a state itself adds, without those that templates change."""
    if isinstance(node, DecideNode):
        try:
            question = write_question(node.prompt({}), {label: text({}) for label, text in node.choices})
        except TemplateError:
            return ()
        return (Message(role="user", content=question),)
    fixed = [entry for entry in node.render if isinstance(entry, CompiledMessage) and entry.fixed]
    return render(fixed, {}, RenderedMessages()).messages


def _read(reading: Reading | None, begins: tuple[Message, ...], own: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return those of the messages that a state reads."""
    if reading is None:
        return (*begins, *own)
    if reading.history == "none":
        begins = ()
    elif reading.history != "all":
        begins = tuple(takewhile(lambda message: message.role != "assistant", begins))
        own = own[-reading.history.last :]
    if reading.system is None:
        return (*begins, *own)
    count = sum(1 for _ in takewhile(lambda message: message.role in SETUP_ROLES, begins))
    try:
        system: tuple[Message, ...] = (Message(role="system", content=reading.system({})),)
    except TemplateError:
        system = ()
    return (*system, *begins[count:], *own)


def _settings_of(node: ChatNode | DecideNode) -> Iterator[tuple[ModelSettings, tuple[ToolDeclaration, ...], str]]:
    """Yield the models that a state may ask, with the tools that it offers in every run."""
    if isinstance(node, DecideNode):
        yield from ((model, (), "auto") for model in _models_of(node.model))
    elif node.settings is not None:
        settings: RequestSettings = node.settings
        model = ModelSettings(settings.model, settings.sampling, settings.keeps_reasoning)
        yield model, settings.tools, settings.tool_choice
    elif node.computed is not None:
        computed = node.computed
        try:
            tools = tuple(computed.declarations[tool] for tool in computed.tools({}))
        except (TemplateError, KeyError, TypeError):  # they are those of a run, or no tools
            tools = ()
        yield from ((model, tools, "auto") for model in _models_of(computed.model))


def _models_of(chosen: ChosenModel) -> Iterable[ModelSettings]:
    try:
        return (chosen.models[chosen.name({})],)
    except (TemplateError, KeyError):  # it is that of a run, or none
        return chosen.models.values()
