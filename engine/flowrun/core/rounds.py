"""Begins rounds: the conversation is complete, and the run has a round left."""

from flowrun.core.failures import StateFailure
from flowrun.core.messages import KeptReply, Reply, Tokens, has_open_calls, last_calls
from flowrun.core.run import Draft, without
from flowrun.core.threads import check_conversation
from flowrun.core.token_limits import least_limits, limits_after, reached_limit
from flowrun.spec.model import TokenLimits


def begin_round(run: Draft, thread: str) -> None:
    """Count a request to the model on a thread, and await its reply.

    Raises:
        StateFailure: the thread has calls without an answer, or ``limits.max_rounds`` or ``limits.tokens``
            is reached.
    """
    messages = run.threads[thread]
    if thread not in run.asked:  # nothing has checked the first messages of the thread
        check_conversation(messages, ended=True)
    elif has_open_calls(messages):
        check_conversation((), waiting=[call.id for call in last_calls(messages).open], ended=True)
    if run.rounds >= run.max_rounds:
        raise StateFailure("limit.rounds", f"the run asked the model {run.rounds} times, which is limits.max_rounds")
    if run.token_limits is not None and (reached := reached_limit(run.token_limits, run.usage)) is not None:
        raise StateFailure("limit.tokens", reached)
    run.rounds += 1
    run.awaiting = "effect"


def lower_limits(run: Draft, left: TokenLimits) -> None:
    """Let a run use no more tokens than ``left``: those that share its limits have used some meanwhile."""
    run.token_limits = least_limits(run.token_limits, limits_after(run.usage, left))


def keep_tokens(run: Draft, thread: str, reply: Reply, tokens: Tokens) -> None:
    """Keep the tokens of a reply for the record of the run."""
    kept = KeptReply(run=run.id, thread=thread, state=run.state, finish_reason=reply.finish_reason, tokens=tokens)
    run.replies = run.replies.appended(kept)


def end_round(run: Draft, thread: str) -> None:
    """Record that a model has read a thread: from now on, prompts extend it as it is."""
    run.replaced = without(run.replaced, thread)
