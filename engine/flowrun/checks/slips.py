"""Remedies for slips in expressions: what Jinja2 has for the words and operators of other languages."""

import re
from typing import Final

from flowrun.spec.suggestions import suggest
from flowrun.templates.sandbox import environment

_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")

_OPERATORS: Final = (
    (r"&&", "write and for &&"),
    (r"\|\|", "write or for ||"),
    (r"!==", "write != for !=="),
    (r"(?<!!)===", "write == for ==="),
    (r"(?<![=!<>])=(?![=><!~])", "write == to compare"),
    (r"(?<!=)=<", "write <= for =<"),
    (r"(?<!=)=!", "write != for =!"),
    (r"(?<!=)=>", "write >= for =>"),
    (r"(?<!=)!(?!=)", "write not for !"),
    (r"\$\{?(?=\w)", "write the name alone, without $ and braces"),
    (r"<>", "write != for <>"),
    (r"\?\?", "write VALUE | default(OTHER) for ??"),
    (r"(?<!\?)\?(?!\?)", "write VALUE if CONDITION else OTHER for ? :"),
    (r"=>|\blambda\b", "use a filter, such as map(attribute='name') or selectattr('name', 'eq', 'x')"),
    (r"\[[^\[\]]*\bfor\b", "use a filter, such as map(attribute='name') or selectattr('name', 'eq', 'x')"),
    (r"\bAND\b", "write and for AND"),
    (r"\bOR\b", "write or for OR"),
    (r"\bNOT\b", "write not for NOT"),
    (r"\{\{-?\s*(?:if|for|set)\b", "statements stand in {% ... %}, and values in {{ ... }}"),
)

_NAMES: Final = {
    "len": "write VALUE | length",
    "str": "write VALUE | string",
    **{name: f"write VALUE | {name}" for name in ("abs", "float", "int", "list", "max", "min", "round", "sum")},
    "sorted": "write VALUE | sort",
    "bool": "compare it with something, such as VALUE == 'yes'",
    "any": "write VALUE | select | list | length > 0",
    "all": "write VALUE | reject | list | length == 0",
    "isinstance": "use a test, such as VALUE is string, is number or is mapping",
    "type": "use a test, such as VALUE is string, is number or is mapping",
    "json": "write VALUE | tojson",
    **dict.fromkeys(("null", "nil", "undefined", "NULL"), "write none"),
    **dict.fromkeys(("result", "output"), "the result of a state is outputs.STATE, a model's is reply.content"),
}

_UNKNOWN: Final = re.compile(r"No (filter|test) named '(.*)'")
_UNCLOSED: Final = (
    ("end of print statement", "close it with }}"),
    ("end of statement block", "close it with %}"),
    ("Unexpected end of template", "close the block, such as {% endif %} or {% endfor %}"),
    ("unexpected end of template", "close it with }} or %}"),
)


def remedy_of_syntax(text: str, message: str) -> str:
    """Return what to write instead in a text that is no valid expression or template.

    Args:
        message: what Jinja2 says about it.
    """
    plain = _QUOTED.sub("''", text)
    if unknown := _UNKNOWN.search(message):
        kind, name = unknown.groups()
        if kind == "test" and name in ("null", "nil"):
            return "write is none"
        known = environment().filters if kind == "filter" else environment().tests
        return suggest(name, [other for other in known if other.isidentifier()], f"{kind}s")
    if slips := [remedy for pattern, remedy in _OPERATORS if re.search(pattern, plain)]:
        return "; ".join(dict.fromkeys(slips))
    if plain.count("'") % 2 or plain.count('"') % 2:
        return "close the quote"
    return next((remedy for part, remedy in _UNCLOSED if part in message), "see the Jinja2 template language")


def remedy_of_name(name: str, text: str) -> str:
    """Return what to write instead of a name that other languages have; "" for any other name.

    Args:
        text: the expression or template that reads the name.
    """
    remedy = _NAMES.get(name, "")
    called = re.search(rf"\b{name}\(([^(),]+)", text)
    return remedy.replace("VALUE", called[1].strip()) if called else remedy
