"""What all pages have: style sheets and scripts that ship as files, and the policy that lets nothing else run."""

import base64
import hashlib
from functools import cache
from importlib.resources import files


@cache
def read_part(name: str, package: str = "flowrun.transcript") -> str:
    """Read a file of the folder ``page`` of a package."""
    return (files(package) / "page" / name).read_text(encoding="utf-8")


def content_policy(style: str, script: str) -> str:
    """Return a Content Security Policy that allows one style sheet and one script, by their digests, and no address."""
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
