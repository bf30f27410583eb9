"""How a run stands, and what it took: counted from its visits."""

from collections.abc import Sequence
from itertools import chain

from flowrun.core.machine import Run
from flowrun.transcript.model import Activity, Attention, Child, FunctionCall, Question, Round, Status, Totals, Visit


def status_of(run: Run, attention: Sequence[Attention], visits: Sequence[Visit], *, live: bool) -> Status:
    """Give a run's status; one that has not ended and waits for nobody runs, if a process drives it."""
    if run.outcome is not None:
        return run.outcome.status
    if any(isinstance(one.about, FunctionCall) for one in attention):
        return "needs_attention"
    if attention and all(map(_waits, (act for visit in visits[-1:] for act in visit.acts))):
        return "waiting"
    return "running" if live else "interrupted"


def _waits(act: Activity) -> bool:
    """Tell whether an act has ended, or waits for somebody."""
    if isinstance(act, Child):
        return act.outcome is not None or (act.story is not None and act.story.status == "waiting")
    return act.seconds is not None or isinstance(act, Question)


def totals_of(visits: Sequence[Visit]) -> Totals:
    """Add up what visits and the children started in them took."""
    totals = Totals(steps=len(visits))
    for act in chain.from_iterable(visit.acts for visit in visits):
        match act:
            case Round():
                usage = act.reply.usage if act.reply is not None else Totals().usage
                totals += Totals(rounds=1, usage=usage)
            case FunctionCall():
                totals += Totals(calls=act.status != "refused")
            case Child():
                totals += Totals(children=1) + (act.story.totals if act.story is not None else Totals())
            case _:
                pass
    return totals
