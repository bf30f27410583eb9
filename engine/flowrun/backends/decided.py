"""The reply to a decide state, the same for all backends: log-probabilities of letters become probabilities."""

from collections.abc import Mapping

from flowrun.core.decisions import weigh
from flowrun.core.messages import Reply, Usage
from flowrun.errors import ModelError


def decided(logprobs: Mapping[str, float], *, usage: Usage) -> Reply:
    """Return the reply to a decide state.

    Args:
        logprobs: the raw log-probabilities by label; minus infinity for a letter that is not among the likeliest.

    Raises:
        ModelError: no letter is possible, or they are no numbers.
    """
    weights = weigh(logprobs)
    if weights is None:
        raise ModelError("model.invalid_output", "none of the letters of the choices is a possible answer")
    return Reply(probabilities=weights.probabilities, mass=weights.mass, usage=usage)
