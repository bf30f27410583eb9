"""The failure of a state, as the exception that its handlers raise."""

from flowrun.errors import Failure
from flowrun.templates import TemplateError


class StateFailure(Exception):
    """The current state fails. The machine catches this error and applies the state's ``retry`` and ``catch``."""

    def __init__(self, name: str, message: str, *, of: Failure | None = None) -> None:
        """Make the failure.

        Args:
            of: the failure of a child run that it passes on.
        """
        self.failure = Failure(name=name, message=message, types=() if of is None else of.types)
        super().__init__(message)


def failure_of(error: StateFailure | TemplateError) -> Failure:
    """Return an exception of a state's handler as a failure."""
    return error.failure if isinstance(error, StateFailure) else Failure(name="template.failed", message=str(error))
