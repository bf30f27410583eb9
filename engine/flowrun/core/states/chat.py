"""The chat state: asks a model for a reply. A reply that was cut off, or that cannot be read, fails the state."""

from collections.abc import Mapping, Sequence
from typing import Final

from flowrun.core.events import AskModel, Event, Failed, Replied
from flowrun.core.messages import Log, Message
from flowrun.core.rendering import CompiledEntry, compile_entry
from flowrun.core.replies import ReadValue, accept_reply, compile_form
from flowrun.core.requests import AS_IT_IS, Reading, compile_reading, messages_of_feedback
from flowrun.core.rounds import begin_round, end_round, keep_tokens, lower_limits
from flowrun.core.run import RequestSettings, Run, mixed_seed
from flowrun.core.shapes import NULL, ROOT, Shape, one_of, shape_of
from flowrun.core.state_node import StateFailure, StateNode, Turn
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.core.states.request_settings import ComputedSettings, compile_settings
from flowrun.core.threads import add_messages, check_conversation
from flowrun.core.views import LazyReply, ReplyView
from flowrun.spec.model import ChatState, ResponseFormat


class ChatNode(StateNode, frozen=True, kw_only=True):
    """A chat state. ``render`` holds the messages that it adds, ``read_value`` reads the value of a reply.

    ``settings`` is None if templates compute them (``computed``), ``read_value`` if there is no response_format or if
    templates give its choices. ``handles_calls`` is true if some state handles the
    tool calls of the reply (see ``call_handling``). ``own_thread`` is ``thread`` as a set, ``first_asked`` is
    ``Run.asked`` after the first request of a run: one object that equal runs share.
    """

    thread: str
    render: tuple[CompiledEntry, ...]
    reading: Reading | None
    settings: RequestSettings | None
    computed: ComputedSettings | None
    read_value: ReadValue | None
    handles_calls: bool
    own_thread: frozenset[str]
    first_asked: Mapping[str, RequestSettings]

    def enter(self, turn: Turn) -> None:
        """Append the state's own messages to its thread, then ask the model."""
        if self.reading is not None:
            turn.run.own_from = len(turn.run.threads[self.thread])
        if self.render:
            add_messages(turn.run, self.thread, self.render, turn.scope)
            turn.run.started = 1
        self.ask(turn)

    def try_again(self, turn: Turn) -> None:
        """Ask the model again. The state's own messages are added only if no earlier attempt has added them."""
        if turn.run.started:
            self.ask(turn)
        else:
            self.enter(turn)

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether an event is the reply, or the model's failure."""
        return isinstance(event, Replied) or (isinstance(event, Failed) and event.index == 0)

    def handle(self, turn: Turn, event: Event) -> None:
        """Append the reply to the thread and leave, or fail."""
        if not isinstance(event, Replied):
            assert isinstance(event, Failed)
            turn.fail(event.failure)
            return
        reply = event.reply
        turn.run.usage += reply.usage
        if event.tokens_left is not None:
            lower_limits(turn.run, event.tokens_left)
        settings = turn.run.asked[self.thread]
        message, parsed = accept_reply(
            reply,
            tool_choice=settings.tool_choice,
            offers_tools=bool(settings.tools),
            handles_calls=self.handles_calls,
            read_value=self.read_value or (None if (form := settings.computed_form) is None else compile_form(form)),
            call_count=turn.run.call_count,
            keeps_reasoning=settings.keeps_reasoning,
        )
        run = turn.save(self)
        if message.tool_calls:
            run.call_count += len(message.tool_calls)
            run.unread = run.unread | self.own_thread if run.unread else self.own_thread
        run.threads = {**run.threads, self.thread: run.threads[self.thread].appended(message)}
        if run.replaced:
            end_round(run, self.thread)
        if reply.tokens is not None and (reply.tokens.logprobs or reply.tokens.masked):
            keep_tokens(run, self.thread, reply, reply.tokens)
        run.reply = LazyReply(self.thread, message, reply, parsed)
        turn.leave(self, run.reply)

    def ask(self, turn: Turn) -> None:
        """Ask the model for a reply to the thread as it is. Raises as ``enter`` does."""
        run = turn.run
        thread = run.threads[self.thread]
        settings = self.settings or self._computed(turn)
        plain = self.reading is None and run.feedback is None
        messages = thread if plain else self._read(self.reading or AS_IT_IS, turn, settings)
        begin_round(run, self.thread)
        sampling = settings.sampling
        if run.seed is not None:
            sampling = {**sampling, "seed": mixed_seed(run.seed, run.rounds)}
        if run.asked.get(self.thread) is not settings:
            shared = not run.asked and self.settings is not None
            run.asked = self.first_asked if shared else {**run.asked, self.thread: settings}
        turn.effects = (
            AskModel(
                step=run.step,
                state=self.name,
                run=run.id,
                flow=turn.graph.spec.name,
                round=run.rounds,
                thread=self.thread,
                model=settings.model,
                messages=messages,
                previous=thread if messages is not thread else run.replaced.get(self.thread) if run.replaced else None,
                tools=settings.tools,
                tool_choice=settings.tool_choice,
                sampling=sampling,
                response_format=settings.response_format,
            ),
        )

    def _read(self, reading: Reading, turn: Turn, settings: RequestSettings) -> Log[Message]:
        """Return the messages that the model reads.

        Raises:
            StateFailure: there are none, or the state's own messages answer calls that the model does not read.
        """
        run = turn.run
        thread = run.threads[self.thread]
        extra: tuple[Message, ...] = ()
        if run.feedback is not None:
            extra = messages_of_feedback(*run.feedback, keeps_reasoning=settings.keeps_reasoning)
        messages = reading.messages(thread, turn.scope, own=len(thread) - run.own_from, extra=extra)
        if not messages:
            raise StateFailure(
                "model.invalid_conversation", "there is nothing to read: history is none, and the state has no messages"
            )
        if reading.history == "none":
            check_conversation(messages, ended=True)
        return messages

    def _computed(self, turn: Turn) -> RequestSettings:
        assert self.computed is not None
        return self.computed.render(turn.scope)


def compile_chat(name: str, state: ChatState, compiler: Compiler) -> ChatNode:
    """Compile a chat state."""
    response_format = state.response_format
    settings = compile_settings(name, state, compiler)
    return ChatNode(
        thread=state.thread,
        render=tuple(map(compile_entry, state.messages)),
        reading=compile_reading(state.system, state.history),
        settings=settings if isinstance(settings, RequestSettings) else None,
        computed=settings if isinstance(settings, ComputedSettings) else None,
        read_value=None if response_format is None or response_format.is_computed else compile_form(response_format),
        handles_calls=name in compiler.handling.chats,
        own_thread=frozenset({state.thread}),
        first_asked={state.thread: settings} if isinstance(settings, RequestSettings) else {},
        **compiler.common(name, state),
    )


def shape_of_reply(states: Sequence[ChatState]) -> Shape:
    """Return the shape of the reply of one of these states, whose ``response_format`` is known."""
    reply = shape_of(ReplyView)
    parsed = one_of([_shape_of_parsed(state.response_format) for state in states])
    return {**reply, "properties": {**reply["properties"], "parsed": parsed}}


def _shape_of_parsed(form: ResponseFormat | None) -> Shape:
    if form is None:
        return NULL
    return {ROOT: form.value_schema}


KIND: Final = StateKind(
    struct=ChatState,
    compile=compile_chat,
    output="the reply, as in `reply`",
    shape=lambda state, flows: shape_of_reply([state]),
    looks={"chat": Look(outline="rounded", light=("#e8f1fd", "#3b7ddd"), dark=("#15243a", "#6ea8fe"))},
)
