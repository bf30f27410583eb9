"""Static checks of a spec that matches the schema. They never raise, report all issues and evaluate no template.

Each module holds a family of checks; each check is a generator of issues over a ``Subject``.
"""

from collections.abc import Callable, Iterator
from typing import Final

from flowrun.checks.assignment import check_assignment
from flowrun.checks.conversations import check_conversations
from flowrun.checks.flows import check_flows
from flowrun.checks.grammar import check_grammar
from flowrun.checks.handling import check_calls
from flowrun.checks.images import check_images
from flowrun.checks.lints import check_lints
from flowrun.checks.locks import check_locks
from flowrun.checks.loops import check_loops
from flowrun.checks.models import check_models
from flowrun.checks.offers import check_offers
from flowrun.checks.reachability import check_graph
from flowrun.checks.references import check_references
from flowrun.checks.repeats import check_repeats
from flowrun.checks.routes import check_routes
from flowrun.checks.schemas import check_schemas
from flowrun.checks.serving import check_serving
from flowrun.checks.subject import Subject
from flowrun.checks.templates import check_templates
from flowrun.checks.tools import check_tools
from flowrun.errors import Issue

_CHECKS: Final[tuple[Callable[[Subject], Iterator[Issue]], ...]] = (
    check_references,
    check_graph,
    check_routes,
    check_loops,
    check_calls,
    check_conversations,
    check_offers,
    check_lints,
    check_templates,
    check_assignment,
    check_flows,
    check_repeats,
    check_schemas,
    check_grammar,
    check_tools,
    check_models,
    check_images,
    check_locks,
    check_serving,
)


_OF_MODELS: Final = (check_references, check_models, check_images, check_locks)


def check_spec(subject: Subject, *, only_models: bool = False) -> list[Issue]:
    """Return all issues of a spec, sorted by position.

    Args:
        only_models: check only what depends on the models and their sampling.
    """
    issues = [issue for check in (_OF_MODELS if only_models else _CHECKS) for issue in check(subject)]
    return sorted(set(issues), key=lambda issue: (issue.place, issue.code, issue.message))


__all__ = ["Subject", "check_spec"]
