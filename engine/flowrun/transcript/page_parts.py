"""What all pages have: templates that escape and defuse all texts, JSON as marked text, style sheets and scripts that
ship as files, and the policy that lets nothing else run.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from flowrun.spec.model import JSON
from flowrun.unicode import visible

_SHORT: Final = 72
"""A JSON value up to this length stays on one line."""

_TOKEN: Final = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(-?\b\d[\d.eE+-]*|\btrue\b|\bfalse\b|\bnull\b)')


@cache
def read_part(name: str, package: str = "flowrun.transcript") -> str:
    """Read a file of the folder ``page`` of a package."""
    return (files(package) / "page" / name).read_text(encoding="utf-8")


def content_policy(style: str, script: str, *, served: bool = False) -> str:
    """Return a Content Security Policy that allows one style sheet and one script, by their digests, and no address.

    Args:
        served: the page may send its forms to the server that it is from, and ask it; no other page may frame it.
    """
    rest = "form-action 'self'; connect-src 'self'; frame-ancestors 'none'" if served else "form-action 'none'"
    return f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; base-uri 'none'; {rest}"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page_templates(parts: Mapping[str, str]) -> Environment:
    """Return the templates of a page: they escape every text, and replace what must not be displayed.

    Args:
        parts: the templates by their names.
    """
    return Environment(
        loader=DictLoader(parts),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=fit,
    )


def fit(value: Any) -> Any:
    """Replace each character that is not allowed in a page, or that changes how others are displayed, by a mark."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def mark_json(value: JSON) -> Markup:
    """Render a value as JSON with marked keys, texts and other values; a short one on one line."""
    text = json.dumps(value, ensure_ascii=False)
    text = visible(text if len(text) <= _SHORT else json.dumps(value, ensure_ascii=False, indent=2))
    return Markup("").join(_marked(text))


def _marked(text: str) -> Iterator[Markup]:
    at = 0
    for found in _TOKEN.finditer(text):
        yield escape(text[at : found.start()])
        quoted, colon, other = found.groups()
        if quoted is None:
            yield Markup('<span class="j-other">{}</span>').format(other)
        elif colon:
            yield Markup('<span class="j-key">{}</span>{}').format(quoted, colon)
        else:
            yield Markup('<span class="j-text">{}</span>').format(quoted)
        at = found.end()
    yield escape(text[at:])
