"""The status and the totals of a run, from its visits."""

from collections.abc import Sequence
from itertools import chain

from flowrun.core.machine import Run
from flowrun.transcript.model import Activity, Attention, Child, FunctionCall, Question, Round, Status, Totals, Visit


def transcript_status(run: Run, attention: Sequence[Attention], visits: Sequence[Visit], *, live: bool) -> Status:
    """Return the status of a run. An open run that does not wait is running if a process drives it (``live``)."""
    if run.outcome is not None:
        return run.outcome.status
    if any(isinstance(one.about, FunctionCall) for one in attention):
        return "needs_attention"
    if run.status == "sleeping":
        return "sleeping"
    activities = [activity for visit in visits[-1:] for activity in visit.activities]
    if all(map(_waits, activities)) and (attention or any(map(_sleeps, activities))):
        return "waiting" if attention else "sleeping"
    return "running" if live else "interrupted"


def _waits(activity: Activity) -> bool:
    """Return whether an activity has ended, or waits for human input."""
    if isinstance(activity, Child):
        return activity.outcome is not None or (
            activity.transcript is not None and activity.transcript.status in ("waiting", "sleeping")
        )
    return activity.seconds is not None or isinstance(activity, Question)


def _sleeps(activity: Activity) -> bool:
    return isinstance(activity, Child) and activity.status == "sleeping"


def totals_of(visits: Sequence[Visit]) -> Totals:
    """Return the totals of visits and of the children that they started."""
    totals = Totals(steps=len(visits))
    for activity in chain.from_iterable(visit.activities for visit in visits):
        match activity:
            case Round():
                usage = activity.reply.usage if activity.reply is not None else Totals().usage
                totals += Totals(rounds=1, usage=usage)
            case FunctionCall():
                totals += Totals(calls=activity.status != "refused")
            case Child():
                totals += Totals(children=1) + (
                    activity.transcript.totals if activity.transcript is not None else Totals()
                )
            case _:
                pass
    return totals
