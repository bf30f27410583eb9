"""The decide state: asks a model to choose, and reads how probable each choice is. Its thread stays as it is."""

from collections.abc import Callable
from typing import Final

from flowrun.core.decisions import write_question
from flowrun.core.events import AskModel, Event, Failed, Replied
from flowrun.core.messages import Message
from flowrun.core.replies import accept_decision
from flowrun.core.requests import AS_IT_IS, Reading, compile_reading, messages_of_feedback
from flowrun.core.rounds import begin_round, end_round, lower_limits
from flowrun.core.run import Run
from flowrun.core.shapes import Shape, closed, shape_of
from flowrun.core.state_node import StateNode, Turn
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.core.states.request_settings import ChosenModel, compile_model
from flowrun.core.views import DecisionView
from flowrun.spec.model import DecideState
from flowrun.templates import Scope, compile_text


class DecideNode(StateNode, frozen=True, kw_only=True):
    """A decide state. ``choices`` are the labels with their descriptions."""

    thread: str
    reading: Reading
    prompt: Callable[[Scope], str]
    choices: tuple[tuple[str, Callable[[Scope], str]], ...]
    labels: tuple[str, ...]
    model: ChosenModel

    def enter(self, turn: Turn) -> None:
        """Ask the model about the thread, with the question as its last message."""
        run, scope = turn.run, turn.scope
        question = write_question(self.prompt(scope), {label: render(scope) for label, render in self.choices})
        model = self.model.render(scope)
        asked = run.asked.get(self.thread)
        tools = () if asked is None else asked.tools  # so that the prompt begins as the thread's last one
        thread = run.threads[self.thread]
        extra: tuple[Message, ...] = (Message(role="user", content=question),)
        if run.feedback is not None:
            extra += messages_of_feedback(*run.feedback, keeps_reasoning=model.keeps_reasoning)
        messages = self.reading.messages(thread, scope, extra=extra)
        begin_round(run, self.thread)
        turn.effects = (
            AskModel(
                step=run.step,
                state=self.name,
                run=run.id,
                flow=turn.graph.spec.name,
                round=run.rounds,
                thread=self.thread,
                model=model.backend,
                messages=messages,
                previous=thread if self.reading is not AS_IT_IS else run.replaced.get(self.thread),
                tools=tools,
                tool_choice="none" if tools else "auto",
                sampling=model.sampling,
                labels=self.labels,
            ),
        )

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether an event is the reply, or the model's failure."""
        return isinstance(event, Replied) or (isinstance(event, Failed) and event.index == 0)

    def handle(self, turn: Turn, event: Event) -> None:
        """Leave with the decision, or fail."""
        if not isinstance(event, Replied):
            assert isinstance(event, Failed)
            turn.fail(event.failure)
            return
        turn.run.usage += event.reply.usage
        if event.tokens_left is not None:
            lower_limits(turn.run, event.tokens_left)
        decision = accept_decision(event.reply, self.labels)
        end_round(turn.save(self), self.thread)
        turn.leave(self, decision)


def compile_decide(name: str, state: DecideState, compiler: Compiler) -> DecideNode:
    """Compile a decide state."""
    return DecideNode(
        thread=state.thread,
        reading=compile_reading(state.system, state.history) or AS_IT_IS,
        prompt=compile_text(state.prompt),
        choices=tuple((label, compile_text(description)) for label, description in state.described.items()),
        labels=tuple(state.described),
        model=compile_model(state, compiler),
        **compiler.common(name, state),
    )


def shape_of_decision(state: DecideState) -> Shape:
    """Return the shape of a state's output, which has its labels."""
    labels = list(state.described)
    view: Shape = shape_of(DecisionView)
    of_labels = {
        "choice": {"type": "string", "enum": labels},
        "probabilities": closed(**{label: shape_of(float) for label in labels}),
    }
    return {**view, "properties": {**view["properties"], **of_labels}}


KIND: Final = StateKind(
    struct=DecideState,
    compile=compile_decide,
    output="`choice`, the `probabilities` by label, and their `mass`",
    shape=lambda state, flows: shape_of_decision(state),
    looks={"decide": Look(outline="notched", light=("#f3e8fd", "#8a4fd0"), dark=("#28173a", "#c29bf2"))},
)
