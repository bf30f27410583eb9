"""The agent state: asks a model and runs the tools that it calls, turn by turn.

It ends with a reply without calls, or after a turn in which a tool of ``stop_at_tools`` succeeded. Its parts are a chat
and a tools state. Each turn of a part is a step of the run, in one visit of the state: its routes, its ``set`` and the
path see the visit only. What a part did stays when the next one fails, and ``retry`` is for one turn of a part.
"""

from typing import ClassVar, Final, NamedTuple

from msgspec.structs import replace

from flowrun.core.events import Event
from flowrun.core.run import Draft, Run
from flowrun.core.state_node import StateFailure, StateNode, Turn
from flowrun.core.states.chat import ChatNode, compile_chat, shape_of_reply
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.core.states.tools import ToolsNode, compile_tools
from flowrun.spec.model import AgentState, ToolsState


class Loop(NamedTuple):
    """The memo of an agent: whether it makes the calls of its last reply, and ``Run.rounds`` when it was entered."""

    acts: bool
    rounds_before: int


class AgentNode(StateNode, frozen=True, kw_only=True):
    """An agent state. Its memo says which of its parts is at work."""

    of_visit: ClassVar[frozenset[str]] = frozenset({"limit.rounds", "limit.tokens", "state.timeout"})

    chat: ChatNode
    tools: ToolsNode
    stop_at_tools: frozenset[str]
    max_rounds: int | None

    def enter(self, turn: Turn) -> None:
        """Add the state's own messages, and ask the model."""
        run = turn.run
        run.memo = Loop(False, run.rounds)
        self.chat.enter(turn)

    def try_again(self, turn: Turn) -> None:
        """Ask the model again, or make the calls that failed."""
        turn.run.memo = _loop_of(turn.run)
        self._check_rounds(turn.run)
        self._part(turn.run).try_again(turn)

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether the part at work awaits an event."""
        return self._part(run).accepts(run, event)

    def handle(self, turn: Turn, event: Event) -> None:
        """Handle an event of the part at work."""
        self._part(turn.run).handle(turn, event)

    def failed(self, turn: Turn) -> None:
        """Store the values of the calls that returned."""
        self._part(turn.run).failed(turn)

    def part_left(self, turn: Turn) -> None:
        """Run the calls of a reply, or ask the model about their results; leave after the last turn."""
        run = turn.run
        loop = _loop_of(run)
        if not loop.acts:
            assert run.reply is not None
            if not run.reply.message.tool_calls:
                turn.leave(self, run.reply)
                return
            turn.begin_step().memo = loop._replace(acts=True)
            self.tools.enter(turn)
        elif run.results is not None and not self.stop_at_tools.isdisjoint(run.results.succeeded()):
            turn.leave(self, run.reply)
        else:
            run = turn.begin_step()
            run.memo, run.started = loop._replace(acts=False), 1
            self._check_rounds(run)
            self.chat.ask(turn)

    def _part(self, run: Draft) -> ChatNode | ToolsNode:
        return self.tools if _loop_of(run).acts else self.chat

    def _check_rounds(self, run: Draft) -> None:
        loop = _loop_of(run)
        asked = run.rounds - loop.rounds_before
        if not loop.acts and self.max_rounds is not None and asked >= self.max_rounds:
            raise StateFailure(
                "limit.rounds", f"state {self.name!r} asked the model {asked} times, which is its max_rounds"
            )


def _loop_of(run: Draft) -> Loop:
    """Return the loop of the visit: it is at its beginning if the agent failed before it was entered."""
    return run.memo if isinstance(run.memo, Loop) else Loop(False, run.rounds)


def compile_agent(name: str, state: AgentState, compiler: Compiler) -> AgentNode:
    """Compile an agent state."""
    tools = ToolsState(**{field: getattr(state, field) for field in ToolsState.__struct_fields__})
    return AgentNode(
        chat=replace(compile_chat(name, state, compiler), part=True),
        tools=replace(compile_tools(name, tools, compiler), part=True),
        stop_at_tools=frozenset(state.stop_at_tools),
        max_rounds=state.max_rounds,
        **compiler.common(name, state),
    )


KIND: Final = StateKind(
    struct=AgentState,
    compile=compile_agent,
    output="the last reply, as in `reply`",
    shape=lambda state, flows: shape_of_reply([state]),
    looks={"agent": Look(outline="rounded", light=("#dff3fb", "#1479a8"), dark=("#0e2a38", "#56c0ee"))},
)
