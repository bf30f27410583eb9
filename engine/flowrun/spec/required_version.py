"""The version of flowrun that a spec needs: ``requires`` at its top."""

from flowrun.errors import Issue
from flowrun.spec.document import Document, issue_at
from flowrun.version import __version__


def check_requires(document: Document) -> Issue | None:
    """Return the issue of a spec that this version of flowrun does not satisfy, or whose ``requires`` is no condition.

    Conditions are those of PEP 440, such as ``>=0.2`` or ``>=0.2,<1``.
    """
    value = document.value
    written = value.get("requires") if isinstance(value, dict) else None
    if not isinstance(written, str):
        return None  # the schema's check reports another type
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        satisfied = SpecifierSet(written).contains(__version__, prereleases=True)
    except InvalidSpecifier:
        remedy = "write a condition such as '>=0.2' or '>=0.2,<1'"
        return issue_at(document, "FR205", ("requires",), f"{written!r} is no condition for a version", remedy)
    if satisfied:
        return None
    message = f"the spec requires flowrun {written}, and this is {__version__}"
    return issue_at(document, "FR711", ("requires",), message, "install such a version, or change 'requires'")
