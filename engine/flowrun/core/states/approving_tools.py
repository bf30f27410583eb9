"""A tools state that asks a person about some of the calls, and makes them once they are approved."""

from collections.abc import Mapping
from typing import Final

from flowrun.core.approvals import Approved, CompiledApproval
from flowrun.core.events import Answered, CallFunction, Effect, Event, Failed, RequestInput, Returned
from flowrun.core.messages import LastCalls, ToolCall, last_calls
from flowrun.core.run import ASKED, EMPTY, HELD, PENDING, Draft, Mark, Run
from flowrun.core.slots import Slots
from flowrun.core.state_node import Turn
from flowrun.core.states.tools_node import ToolsNode
from flowrun.core.tool_calls import check_call, hidden_arguments, offered_tools, prepare_call, scope_of_call
from flowrun.core.views import Value
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.unicode import find_encoding_error

_ANSWERS: Final = (Answered, Returned, Failed)


class ApprovingToolsNode(ToolsNode, frozen=True, kw_only=True):
    """A tools state that asks a person about some calls, about all of them at once.

    A call that waits for an answer holds a place of ``max_concurrency``. The run is ``waiting`` while a question is
    open and no call is under way. Once the state is to fail, no call begins; consent is kept for another attempt.
    """

    max_concurrency: int | None
    approvals: Mapping[str, CompiledApproval]

    def enter(self, turn: Turn) -> None:
        """Check every call, ask about those that need consent, and request the first others.

        Raises:
            StateFailure: the calls are more than the run may make.
        """
        run = turn.run
        calls, slots = self._open_calls(turn)
        made = run.made.get(self.thread)
        run.approved = made.approved if made is not None and made.at == self._last(run).at else EMPTY
        offered = offered_tools(turn.graph, run, self.thread)
        questions: list[Effect] = []
        for index, call in enumerate(calls):
            if slots[index] is PENDING:
                slots[index] = HELD
                arguments = EMPTY if index in run.approved else check_call(turn.graph, offered, call)
                if isinstance(arguments, Failure):
                    slots[index] = arguments
                elif index not in run.approved and (question := self._question(turn, index, call, arguments)):
                    slots[index] = ASKED
                    questions.append(question)
        run.calls, run.awaiting = Slots(slots), "calls"
        self._go_on(turn, questions)

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether an event answers an open question, or is the end of a call that is under way."""
        if run.calls is None or not isinstance(event, _ANSWERS):
            return False
        slot = run.calls.get(event.index)
        if not isinstance(event, Answered):
            return slot is PENDING or (slot is ASKED and isinstance(event, Failed))
        if slot is not ASKED:
            return False
        approval = self.approvals[self._last(run).calls[event.index].name]
        return (find_encoding_error(event.value) or approval.validate(event.value)) is None

    def handle(self, turn: Turn, event: Event) -> None:
        """Store an answer, or a call's value or failure; begin the calls that may run now, or leave the state."""
        run = turn.run
        assert run.calls is not None
        if isinstance(event, Answered):
            run.calls = run.calls.changed(event.index, self._consent(turn, event))
        elif isinstance(event, Returned):
            run.calls = run.calls.changed(event.index, Value(event.value))
        else:
            assert isinstance(event, Failed)
            run.calls = run.calls.changed(event.index, event.failure)
        self._go_on(turn, [])

    def _question(self, turn: Turn, index: int, call: ToolCall, arguments: Mapping[str, JSON]) -> RequestInput | None:
        """Return the question about a call; None if it needs no consent.

        Raises:
            StateFailure, TemplateError: see ``hidden_arguments``; the condition or the prompt cannot be evaluated.
        """
        approval = self.approvals.get(call.name)
        if approval is None:
            return None
        run = turn.run
        hidden = hidden_arguments(run, turn.graph.tools[call.name], arguments)
        scope = scope_of_call(run, call, {**arguments, **hidden})
        if approval.when is not None and not approval.when(scope):
            return None
        return RequestInput(
            step=run.step,
            index=index,
            state=run.state,
            run=run.id,
            prompt=approval.prompt(scope),
            schema=approval.schema_with(arguments),
            timeout=approval.timeout,
            call={"id": call.id, "name": call.name, "arguments": arguments, "hidden": hidden},
        )

    def _consent(self, turn: Turn, event: Answered) -> Failure | Mark:
        """Return the slot of a call that a person has approved or refused; keep what was approved.

        Raises:
            StateFailure, TemplateError: see ``hidden_arguments``.
        """
        run, answer = turn.run, event.value
        if not answer["ok"]:
            return Failure(name="tool.refused", message=answer.get("reason") or "a person did not approve the call")
        call = self._last(run).calls[event.index]
        given = check_call(turn.graph, (call.name,), call)
        assert not isinstance(given, Failure)
        arguments = answer.get("arguments", given)
        hidden = hidden_arguments(run, turn.graph.tools[call.name], arguments)
        run.approved = {**run.approved, event.index: Approved(arguments, hidden, arguments != given)}
        return HELD

    def _go_on(self, turn: Turn, effects: list[Effect]) -> None:
        """Begin the calls that may run now; leave the state after the last one, or if it is to fail."""
        run = turn.run
        assert run.calls is not None
        slots = list(run.calls)
        fails = self.raises and any(isinstance(slot, Failure) for slot in slots)
        unfinished = [index for index, slot in enumerate(slots) if slot in (PENDING, ASKED, HELD)]
        calls, offered = self._last(run).calls, offered_tools(turn.graph, run, self.thread)
        for index in () if fails else unfinished[: self.max_concurrency]:
            if slots[index] is HELD:
                begun = prepare_call(turn, offered, index, calls[index], run.approved.get(index))
                slots[index] = PENDING if isinstance(begun, CallFunction) else begun
                effects += [begun] if isinstance(begun, CallFunction) else []
        run.calls = Slots(slots)
        under_way, asks = slots.count(PENDING), slots.count(ASKED)
        run.left = under_way if fails else under_way + asks + slots.count(HELD)
        run.status = "waiting" if asks and not under_way and run.left else "running"
        if run.left:
            turn.effects = tuple(effects)
        else:
            self._leave(turn)

    def _last(self, run: Draft) -> LastCalls:
        return last_calls(run.threads[self.thread])
